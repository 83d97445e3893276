// ------------------------------------------------------------------ events, from their lines as they were written

const LEVELS = ["debug", "info", "warning", "error", "critical"];
const field = (event, name) => (Object.hasOwn(event, name) ? event[name] : undefined);
const text_of = (value) => (typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value));

function parsed(line) {
  try {
    const event = JSON.parse(line);
    return event !== null && typeof event === "object" && !Array.isArray(event) ? event : { message: line };
  } catch {
    return { message: line };
  }
}

// A line as JSON over several lines; its texts and numbers as they are written.
function pretty(line) {
  let out = "", depth = 0, end = 0;
  const again = () => `\n${"  ".repeat(Math.min(depth, 40))}`;
  for (const match of line.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/gs)) {
    const token = match[0], next = /^\s*[}\]]/.test(line.slice(match.index + 1, match.index + 9));
    end = match.index + token.length;
    if (token === "{" || token === "[") {
      depth += 1;
      out += next ? token : token + again();
    } else if (token === "}" || token === "]") {
      depth -= 1;
      out += /[{[]$/.test(out) ? token : again() + token;
    } else if (token === ",") out += token + again();
    else out += token === ":" ? ": " : token;
  }
  return out + line.slice(end);
}

// The members of an event as they are written: a number with all its digits, a text as what it says.
function written(line) {
  const found = [];
  let depth = 0, key = null, start = -1;
  for (const match of line.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\],:]/gs)) {
    const token = match[0];
    if (depth === 1 && key === null && token[0] === '"') key = token;
    else if (depth === 1 && token === ":" && start < 0) start = match.index + 1;
    if ((token === "," && depth === 1) || (token === "}" && depth === 1)) {
      if (key !== null && start >= 0) found.push([JSON.parse(key), line.slice(start, match.index).trim()]);
      [key, start] = [null, -1];
    }
    if (token === "{" || token === "[") depth += 1;
    if (token === "}" || token === "]") depth -= 1;
  }
  return found.map(([name, text]) => [name, text[0] === '"' ? JSON.parse(text) : text]);
}

function members_of(line) {
  try {
    return written(line);
  } catch {
    return [];
  }
}

// An exception as Python would print it: what caused it first. Anything else as JSON.
function trace_text(value, depth = 0) {
  if (typeof value === "string") return value;
  if (!Array.isArray(value) || depth > 8) return JSON.stringify(value, null, 1);
  return [...value].reverse().slice(0, 100).map((one) => {
    if (one === null || typeof one !== "object") return String(one);
    const lines = [], frames = Array.isArray(field(one, "frames")) ? one.frames : [];
    if (frames.length) lines.push("Traceback (most recent call last):");
    for (const frame of frames.slice(0, 200)) {
      if (frame === null || typeof frame !== "object") continue;
      lines.push(`  File "${text_of(field(frame, "filename"))}", line ${text_of(field(frame, "lineno"))}, in ${text_of(field(frame, "name"))}`);
      if (field(frame, "line")) lines.push(`    ${text_of(frame.line)}`);
    }
    if (field(one, "frames_omitted")) lines.push(`  (${text_of(one.frames_omitted)} frames in the middle are left out)`);
    const module = field(one, "module") ? `${text_of(one.module)}.` : "";
    const value = text_of(field(one, "value") ?? field(one, "exc_value"));
    lines.push(`${module}${text_of(field(one, "type") ?? field(one, "exc_type"))}${value ? `: ${value}` : ""}`);
    for (const note of Array.isArray(field(one, "notes")) ? one.notes : []) lines.push(text_of(note));
    const members = Array.isArray(field(one, "exceptions")) ? one.exceptions : [];
    members.slice(0, 50).forEach((member, index) => {
      lines.push(`  +---------------- ${index + 1} of ${members.length} ----------------`, trace_text(member, depth + 1).replace(/^/gm, "  | "));
    });
    return lines.join("\n");
  }).join("\n\nwhich led to:\n\n");
}

const IN_LINE = new Set(["ts_utc", "level", "message", "exception", "case_id"]);

let items_made = 0;

// Events with all that a list needs: the line as it was written, the id, and which of those with the same id it is.
function items_of(found, ids = new Map()) {
  return found.lines.map((line, index) => {
    const event = parsed(line), id = text_of(field(event, "event_id")), nth = (ids.get(id) || 0) + 1;
    ids.set(id, nth);
    return { event, line, id, nth, number: (items_made += 1), where: found.where && found.where[index], cut: found.cut && found.cut[index] };
  });
}

const MOST_HELD = 10000; // events of one list, if more arrive while the page is open

class EventList {
  // box: where; key: of the run, or errors or outside; hash: what its links begin with; counts: of the events that are
  // here, and in all; query: where the rest is; only: which of a run's events; fetch: another way to get them
  constructor(box, key, hash, counts, query, only = null, fetch = null) {
    Object.assign(this, { box, key, hash, counts, query, only, events: [], ready: null, is_run: by_key.has(key) });
    this.unfolded = new Set(); // lines
    this.fetch = fetch || (() => store.events(key));
    this.most = this.first;
  }
  get first() {
    return this.is_run ? 200 : 20;
  }
  open() {
    if (!this.ready) {
      this.ready = this.load();
      store.opened(this);
    }
    return this.ready;
  }
  async load() {
    const found = (await this.fetch()) || { lines: [], where: [], cut: {} };
    this.ids = new Map();
    const all = items_of(found, this.ids), gap = found.gap ?? null;
    this.events = this.only ? all.filter(this.only) : all;
    const is_counted = found.count !== undefined; // by the server: it has only the events that are wanted
    this.after_gap = gap === null || (this.only && !is_counted) ? null : all[gap];
    if (is_counted) this.counts = { events: this.events.length, count: found.count - (all.length - this.events.length) };
    this.build();
  }
  // Events that have arrived since; those that are here already are passed over. The rows that are there stay as they are.
  add(found) {
    this.known ??= new Set(this.events.map((one) => one.line));
    let fresh = items_of({ lines: found.lines.filter((line) => !this.known.has(line)) }, this.ids);
    // those of the middle are counted already
    if (this.after_gap) fresh = fresh.filter((one) => String(field(one.event, "ts_utc")) >= String(field(this.after_gap.event, "ts_utc")));
    if (!fresh.length) return;
    for (const one of fresh) this.known.add(one.line);
    const had = this.list ? this.wanted().length : 0;
    this.events.push(...fresh);
    this.counts = { events: this.events.length, count: this.counts.count + fresh.length };
    if (this.list) this.offer(fresh);
    this.trim();
    if (!this.list) {
      this.build();
      return;
    }
    const shown_now = this.list.querySelectorAll("[data-number]").length;
    if (had <= this.most && shown_now === had) this.list.append(...this.rows_of(fresh.filter((one) => this.matches(one)).slice(0, Math.max(0, this.most - had))));
    this.tell();
  }
  trim() {
    const excess = this.events.length - MOST_HELD;
    if (excess <= 0) return;
    const at = this.after_gap ? this.events.indexOf(this.after_gap) : MOST_HELD / 2;
    for (const one of this.events.splice(at, excess)) this.known.delete(one.line);
    this.after_gap = this.events[at];
    this.counts.events = this.events.length;
    if (this.list) this.draw();
  }
  // The next events of those that are left out in the middle.
  async fill() {
    const at = this.events.indexOf(this.after_gap), missing = this.counts.count - this.events.length;
    const found = await store.events(this.key, this.case_id, at), most = Math.min(missing, found.lines.length);
    const here = new Set(this.events.map((one) => one.line));
    const fresh = items_of({ lines: found.lines.slice(0, most).filter((line) => !here.has(line)) }, this.ids);
    this.events.splice(at, 0, ...fresh);
    this.known = null;
    this.counts.events = this.events.length;
    if (most === missing || !most) this.after_gap = null;
    this.most = Math.max(this.most, at + most);
    this.offer(fresh);
    this.draw();
  }
  // Sources and cases that are new can be chosen, too.
  offer(items) {
    for (const [select, name, most] of [[this.source, "source", 200], [this.of_case, "case_id", 5000]]) {
      const there = new Set([...select.options].map((option) => option.value));
      for (const { event } of items) {
        const value = field(event, name);
        if (typeof value !== "string" || there.has(value) || there.size > most) continue;
        there.add(value);
        select.append(make("option", { value }, visible(value).slice(0, 80)));
      }
    }
  }
  build() {
    const { counts } = this;
    const left = counts.count - counts.events;
    this.said = make("p", { class: "muted", role: "status" });
    const rest = make("p", { class: "muted" }, left > 0 ? `${count(counts.events)} of ${count(counts.count)} events are in this page. ` : "", this.query ? (left > 0 ? "The others: " : "The same by: ") : "", this.query ? make("code", {}, shown(this.query)) : "");
    if (!this.events.length) {
      this.box.replaceChildren(make("p", { class: "muted" }, counts.count ? "There was no room for these events." : "There are none."), counts.count ? rest : "");
      return;
    }
    const select = (label, values) => make("select", { "aria-label": label }, make("option", { value: "" }, `${label}: all`), ...values.map((value) => make("option", { value }, visible(value).slice(0, 80))));
    const distinct = (name, most) => [...new Set(this.events.map((one) => field(one.event, name)).filter((value) => typeof value === "string"))].sort().slice(0, most);
    this.level = make("select", { "aria-label": "Level" }, make("option", { value: "" }, "Level: all"), ...LEVELS.slice(1).map((value) => make("option", { value }, `${value} or worse`)));
    this.source = select("Source", distinct("source", 200));
    this.of_case = select("Case", distinct("case_id", 5000));
    this.text = make("input", { type: "search", placeholder: "Text", "aria-label": "Text" });
    this.list = make("ol", { class: this.is_run ? "list" : "list many" });
    this.further = make("button", { type: "button", class: "events-more" });
    this.further.addEventListener("click", () => { this.most += 500; this.draw(); });
    for (const control of [this.level, this.source, this.of_case, this.text]) {
      control.addEventListener("input", () => { this.most = this.first; this.draw(); });
    }
    const tools = make("form", { class: "tools", role: "search" }, this.level, this.source, this.of_case, this.text);
    tools.addEventListener("submit", (event) => event.preventDefault());
    this.box.replaceChildren(tools, this.said, this.list, this.further, rest);
    this.draw();
  }
  matches({ event, line }) {
    const least = LEVELS.indexOf(this.level.value), source = this.source ? this.source.value : "", of_case = this.of_case ? this.of_case.value : "";
    const text = this.text.value.toLowerCase();
    return (least < 1 || !LEVELS.includes(field(event, "level")) || LEVELS.indexOf(field(event, "level")) >= least) && (!source || field(event, "source") === source) &&
      (!of_case || field(event, "case_id") === of_case) && (!text || line.toLowerCase().includes(text));
  }
  wanted() {
    return this.events.filter((one) => this.matches(one));
  }
  draw() {
    this.list.replaceChildren(...this.rows_of(this.wanted().slice(0, this.most)));
    this.tell();
  }
  rows_of(items) {
    return items.flatMap((one) => (one === this.after_gap ? [this.gap_row(), this.row(one)] : [this.row(one)]));
  }
  tell() {
    const found = this.wanted();
    const of_all = this.counts.count > this.events.length ? ` here (${count(this.counts.count)} in all)` : "";
    this.said.textContent = `${found.length === this.events.length ? "" : `${count(found.length)} of `}${counted(this.events.length, "event")}${of_all}`;
    this.further.hidden = found.length <= this.most;
    this.further.textContent = `Show more (${count(found.length - this.most)} left)`;
  }
  gap_row() {
    const missing = this.counts.count - this.events.length, between = `${counted(missing, "event")} between these ${missing === 1 ? "is" : "are"} not in this page`;
    if (!store.is_live) return make("li", { class: "gap muted" }, between);
    const button = make("button", { type: "button" }, "Load more");
    button.addEventListener("click", () => { button.disabled = true; this.fill().catch(say_trouble); });
    return make("li", { class: "gap muted" }, between, " ", button);
  }
  // where an event of a list over many runs is from
  place_of(event) {
    const names = this.is_run ? ["case_id"] : ["node_id", "run_id", "case_id"];
    return names.map((name) => text_of(field(event, name))).filter(Boolean).join(" · ");
  }
  row(one) {
    const { event } = one, level = text_of(field(event, "level"));
    const message = text_of(field(event, "message"));
    const button = make("button", { type: "button", class: "line", "aria-expanded": "false" },
      make("span", { class: "w" }, event_time(field(event, "ts_utc"))),
      make("span", { class: LEVELS.includes(level) ? `l-${level}` : "" }, shown(level, 20)),
      make("span", { class: "c" }, shown(this.place_of(event), 120)),
      make("span", { class: "m" }, message ? shown(message, 300) : make("span", { class: "muted" }, "(no message)"), this.exception_said(event)));
    const item = make("li", { "data-number": one.number }, button);
    button.addEventListener("click", () => this.toggle(item, one));
    if (this.unfolded.has(one.line)) this.toggle(item, one, true);
    return item;
  }
  exception_said(event) {
    const chain = field(event, "exception"), first = Array.isArray(chain) ? chain[0] : null;
    if (first === null || typeof first !== "object") return "";
    return make("span", { class: "bad" }, " ", shown(`${text_of(field(first, "type"))}: ${text_of(field(first, "value"))}`, 200));
  }
  toggle(item, one, open) {
    const button = $(".line", item), old = $(".detail", item);
    const should = open ?? old === null;
    if (old) old.remove();
    button.setAttribute("aria-expanded", String(should));
    this.unfolded[should ? "add" : "delete"](one.line);
    if (should) item.append(this.detail(one));
  }
  detail(one) {
    const { event, line } = one, box = make("div", { class: "detail" });
    const members = members_of(line).filter(([name]) => !IN_LINE.has(name)), message = text_of(field(event, "message"));
    if (message.length > 300 || message.includes("\n")) box.append(make("pre", {}, shown(text_of(event.message), 20000)));
    if (field(event, "exception") !== undefined) box.append(make("pre", {}, shown(trace_text(event.exception), 50000)));
    box.append(make("dl", {}, ...members.slice(0, 100).flatMap(([name, text]) => [make("dt", {}, shown(name, 100)), make("dd", {}, shown(text, 1000))])));
    if (members.length > 100) box.append(make("p", { class: "muted" }, `and ${count(members.length - 100)} more fields`));
    if (one.where) box.append(make("p", { class: "muted" }, "Line ", count(one.where[1]), " of ", make("code", {}, shown(one.where[0], 200))));
    if (one.cut) box.append(make("p", { class: "muted" }, `This event has ${count(one.cut)} bytes: long values are cut here.`));
    if (one.id && one.id.length < 200) {
      box.append(make("p", { class: "muted" }, "Whole: ", make("code", {}, shown(`${facts.show} ${quoted(one.id)}`))));
    }
    const json = make("button", { type: "button" }, "JSON"), pre = make("pre", { hidden: true });
    json.addEventListener("click", () => {
      if (pre.hidden) pre.replaceChildren(shown(pretty(line), 200000));
      pre.hidden = !pre.hidden;
      json.setAttribute("aria-expanded", String(!pre.hidden));
    });
    const link = make("a", { href: this.link(one) }, "Link to this event");
    const run = run_of_event(event);
    const to_run = run && this.key !== run.key ? make("a", { href: run.chosen ? `#run/${run.key}/event/${encodeURIComponent(well_formed(one.id))}` : `#run/${run.key}` }, "Its run") : null;
    box.append(make("p", { class: "tools" }, json, link, to_run), pre);
    return box;
  }
  link(one) {
    return `${this.hash}/event/${encodeURIComponent(well_formed(one.id))}${one.nth > 1 ? `/${one.nth}` : ""}`;
  }
  async go(id, nth, node) {
    await this.open();
    if (!this.events.length) return false;
    for (const control of [this.level, this.source, this.of_case, this.text]) control.value = "";
    const one = this.events.find((other) => well_formed(other.id) === id && (node ? field(other.event, "node_id") === node : other.nth === (nth || 1)));
    if (one === undefined) return false;
    this.most = Math.max(this.most, this.events.indexOf(one) + 50);
    this.draw();
    const item = $(`[data-number="${one.number}"]`, this.list);
    this.toggle(item, one, true);
    item.classList.add("here");
    item.scrollIntoView({ block: "center" });
    $(".line", item).focus({ preventScroll: true });
    return true;
  }
}

const well_formed = (text) => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, "\ufffd");
