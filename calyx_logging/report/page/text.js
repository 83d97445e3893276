"use strict";

// Nothing from an event ever becomes markup: elements are made here, texts are text nodes. The page's policy
// (require-trusted-types-for) forbids the rest; the chart library empties its box by innerHTML = "", which is let through.
if (window.trustedTypes) {
  window.trustedTypes.createPolicy("default", { createHTML: (html) => (html === "" ? html : null) });
}

const $ = (selector, within = document) => within.querySelector(selector);
const facts = JSON.parse($("#facts").textContent);
const ATTRIBUTES = /^(class|id|type|value|title|scope|hidden|colspan|label|disabled|list|name|role|for|placeholder|tabindex|datetime|width|height|viewBox|aria-[a-z]+|data-[a-z]+)$/;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "href" ? !String(value).startsWith("#") : !ATTRIBUTES.test(name)) throw new Error(`no attribute ${name}`);
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// What reorders text, or cannot be seen, is shown by its number.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]|[\u{e0000}-\u{e007f}]/gu;

const number_of = (letter) => `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
const visible = (value) => String(value).replace(UNSEEN, (letter) => `[${number_of(letter)}]`);

function shown(value, most = 2000) {
  const text = String(value), box = make("bdi"), cut = text.slice(0, most);
  let end = 0;
  for (const match of cut.matchAll(UNSEEN)) {
    box.append(cut.slice(end, match.index), make("span", { class: "u" }, number_of(match[0])));
    end = match.index + match[0].length;
  }
  box.append(cut.slice(end) + (text.length > most ? `… (${count(text.length)} characters)` : ""));
  return box;
}

const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-US"));
function score(value) {
  if (value === null || value === undefined || !isFinite(value)) return "–";
  const size = Math.abs(value);
  return size >= 1000 && size < 1e9 ? Math.round(value).toLocaleString("en-US") : size !== 0 && (size >= 1e9 || size < 1e-4) ? value.toExponential(2) : value.toPrecision(3);
}
const exact_score = (value) => (typeof value === "number" ? String(Number(value.toPrecision(6))) : visible(value));
const counted = (value, thing) => `${count(value)} ${thing}${value === 1 ? "" : "s"}`;
const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(1)} %`);

function duration(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "–";
  if (seconds < 1) return `${seconds < 0.01 && seconds > 0 ? Number((seconds * 1000).toPrecision(2)) : Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(2)} s`;
  const whole = Math.round(seconds), days = Math.floor(whole / 86400), hours = Math.floor(whole / 3600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  return hours ? `${hours} h ${minutes} min` : `${minutes} min ${whole % 60} s`;
}

// ------------------------------------------------------------------ times: the node's own, in the reader's zone

const zone = { name: "UTC", format: null };

function use_zone(name) {
  const options = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
  const timeZone = name === "local" ? undefined : name;
  zone.format = new Intl.DateTimeFormat("en-GB", { ...options, hourCycle: "h23", timeZone });
  zone.name = name;
}

function parts_of(ms) {
  const parts = {};
  for (const part of zone.format.formatToParts(ms)) parts[part.type] = part.value;
  return parts;
}

function time_text(ms, fraction = "") {
  if (ms === null || !isFinite(ms) || Math.abs(ms) > 8.64e15) return "–";
  const p = parts_of(Math.floor(ms));
  return `${p.year}-${p.month}-${p.day} ${p.hour}:${p.minute}:${p.second}${fraction}`;
}

// a browser takes "step 7" for a time, too
const IS_TIME = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:?\d\d)$/;

const exact_time = (ms) => time_text(ms, `.${String(Math.floor(ms) % 1000).padStart(3, "0")}`);

// "2026-03-01T05:26:25.334539+00:00": the fraction is the same in every zone, and stays as it was written
function event_time(text) {
  const ms = typeof text === "string" && IS_TIME.test(text) ? Date.parse(text.replace(" ", "T").replace(",", ".")) : NaN;
  if (isNaN(ms)) return text === undefined ? "–" : visible(text_of(text)).slice(0, 40);
  const fraction = /[.,](\d+)/.exec(text.slice(10));
  return time_text(ms, fraction ? `.${fraction[1].slice(0, 6)}` : "");
}

function show_times(within = document) {
  const said = $("#zone-said", within);
  if (said) said.textContent = zone.name === "local" ? Intl.DateTimeFormat().resolvedOptions().timeZone : zone.name;
  for (const element of within.querySelectorAll("time[datetime]")) {
    element.textContent = time_text(Date.parse(element.getAttribute("datetime")));
  }
}

// ------------------------------------------------------------------ what lies in the page, packed

const unpacked = new Map();

function blob(key) {
  if (!unpacked.has(key)) unpacked.set(key, unpack(document.getElementById(`blob-${key}`)));
  return unpacked.get(key);
}

async function unpack(element) {
  if (element === null) return null;
  const bytes = Uint8Array.from(atob(element.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Where cases and events come from: the page itself; on a page that a server shows, live.js puts the server here.
const store = {
  is_live: false,
  first_cases: async () => {
    const details = await blob("details");
    Object.assign(facts, { processes: details.processes, envelopes: details.envelopes });
    return (await blob("cases")) || {};
  },
  events: (key) => blob(key),
  others: null,
  need: async () => {}, // of a run: that its cases are here
  opened: () => {}, // a list of events
  put_rows: (body, rows) => body.replaceChildren(...rows),
};

function say(text) {
  const box = $("#trouble");
  box.hidden = false;
  box.textContent = text;
}

const say_trouble = (error) => say(`A part of this page does not work here: ${error && error.message ? error.message : error}`);

window.addEventListener("error", (event) => say_trouble(event.error || event.message));
window.addEventListener("unhandledrejection", (event) => say_trouble(event.reason));

const quoted = (text) => (/^[\w.:@%+=/-]+$/.test(text) ? text : text.includes("'") && !/["$`\\!]/.test(text) ? `"${text}"` : `'${text.replace(/'/g, "'\\''")}'`);
