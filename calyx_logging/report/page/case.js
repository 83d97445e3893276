// ------------------------------------------------------------------ one case: what was asked, answered and expected

// Where harnesses put things: names of inspect_ai, lm_eval, the OpenAI form of messages, and usual ones. The first that
// an event of the case has counts, the event that ends the case before others.
const CASE_FIELDS = {
  input: ["input", "question", "prompt", "query", "problem", "instruction", "doc", "arguments"],
  expected: ["target", "expected", "expected_output", "expected_answer", "reference", "ideal", "gold", "ground_truth", "label"],
  answer: ["answer", "output", "completion", "response", "prediction", "generation", "generated_text", "model_output", "filtered_resps", "resps"],
  messages: ["messages", "conversation", "transcript", "chat"],
  usage: ["usage", "model_usage", "token_usage"],
};
const TOKENS = [["Tokens in", ["input_tokens", "prompt_tokens"]], ["Tokens out", ["output_tokens", "completion_tokens"]], ["Tokens", ["total_tokens"]]];
const SEEN_ABOVE = new Set(["score", "passed", "model", "outcome", "duration_s", "exception", "stage", "case_id", "node_id", "ts_utc", "event_id", "source", "seq", "level", "logger", "message", "run_id", "run_instance_id", "suite"]);
const LONGEST = 40000;

const is_object = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const is_message = (value) => is_object(value) && typeof field(value, "role") === "string" && ["content", "tool_calls", "parts"].some((name) => field(value, name) !== undefined);
const are_messages = (value) => Array.isArray(value) && value.length > 0 && value.every(is_message);

// The first of the fields that an event has, and which it is; noted in `used`, so that it is not shown twice.
function first_of(events, names, used = new Set()) {
  for (const event of events) {
    for (const name of names) {
      const value = field(event, name);
      if (value === undefined || value === null || value === "") continue;
      if (event === events[0]) used.add(name);
      return value;
    }
  }
  return undefined;
}

// An event with its numbers as they are written: a script's number has 53 bits.
function exact({ event, line }) {
  const texts = new Map(members_of(line));
  return Object.fromEntries(Object.entries(event).map(([name, value]) => [name, typeof value === "number" && texts.has(name) ? texts.get(name) : value]));
}

// Whether an event is of a case; a number is an id as it is written.
const is_of_case = (one, id) => {
  const own = field(one.event, "case_id");
  return own !== undefined && own !== null && text_of(typeof own === "number" ? exact(one).case_id : own) === String(id);
};

// The text of a model's output, or of its first choice.
function output_text(value) {
  const choice = is_object(value) && Array.isArray(field(value, "choices")) ? value.choices[0] : undefined;
  if (is_object(choice) && is_message(field(choice, "message"))) return content_text(choice.message.content);
  if (is_object(value) && typeof field(value, "completion") === "string") return value.completion;
  return value_text(value);
}

const value_text = (value) => (value === undefined ? undefined : typeof value === "string" ? value : JSON.stringify(value, null, 1));

// A message's content as text; images and files are named, never loaded.
function content_text(content) {
  if (content === undefined || content === null) return "";
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return value_text(content);
  return content.slice(0, 200).map((part) => {
    if (typeof part === "string") return part;
    if (!is_object(part)) return value_text(part);
    const kind = text_of(field(part, "type"));
    if (typeof field(part, "text") === "string") return part.text;
    if (kind === "tool_use" || kind === "tool_result") return `[${kind.replace("_", " ")}] ${text_of(field(part, "name"))} ${field(part, "input") === undefined ? content_text(field(part, "content")) : value_text(part.input)}`;
    const source = field(part, "image_url") ?? field(part, "image") ?? field(part, "source") ?? field(part, "file") ?? field(part, "url");
    const place = is_object(source) ? text_of(field(source, "url") ?? field(source, "media_type")) : text_of(source);
    return `[${kind || "part"}: ${short(place, 80) || "not shown"}]`;
  }).join("\n");
}

function calls_of(message) {
  const calls = Array.isArray(field(message, "tool_calls")) ? message.tool_calls : [];
  return calls.slice(0, 50).filter(is_object).map((call) => {
    const inner = is_object(field(call, "function")) ? call.function : call;
    const name = typeof field(call, "function") === "string" ? call.function : text_of(field(inner, "name"));
    return `${name}(${value_text(field(inner, "arguments")) ?? ""})`;
  });
}

// The conversation, from the fields of a case, from its input, or from events that are messages themselves.
function conversation_of(events, input, used) {
  for (const event of events) {
    const name = CASE_FIELDS.messages.find((one) => are_messages(field(event, one)));
    if (name === undefined) continue;
    if (event === events[0]) used.add(name);
    return event[name];
  }
  if (are_messages(input)) return input;
  const told = [...events].reverse().filter((event) => is_message(event) && field(event, "stage") !== "case_ended");
  return told.length ? told : null;
}

function tokens_of(events, used) {
  const usages = [first_of(events, CASE_FIELDS.usage, used), field(Object(first_of(events, ["output"])), "usage")].filter(is_object);
  const inner = usages.flatMap((usage) => [usage, ...Object.values(usage).filter(is_object)]);
  return TOKENS.map(([name, names]) => [name, first_of([...events, ...inner], names, used)]).filter((pair) => pair[1] !== undefined && !is_object(pair[1]) && isFinite(Number(pair[1])));
}

// All that the page shows of a case, from its events: the one that ended it last comes first.
function told_of(events) {
  const ordered = [...events].reverse().sort((a, b) => (field(b, "stage") === "case_ended") - (field(a, "stage") === "case_ended"));
  const used = new Set(), input = first_of(ordered, CASE_FIELDS.input, used), messages = conversation_of(ordered, input, used);
  const answer = first_of(ordered, CASE_FIELDS.answer, used), last = messages && messages[messages.length - 1];
  const expected = first_of(ordered, CASE_FIELDS.expected, used);
  return {
    input: messages === input ? undefined : value_text(input), messages, tokens: tokens_of(ordered, used),
    expected: value_text(expected),
    answer: answer !== undefined ? output_text(answer) : last && field(last, "role") === "assistant" ? content_text(field(last, "content")) : undefined,
    traces: ordered.map((event) => field(event, "exception")).filter((value) => value !== undefined).slice(0, 5).map((value) => trace_text(value)),
    others: ordered.length ? Object.entries(ordered[0]).filter(([name]) => !SEEN_ABOVE.has(name) && !used.has(name)) : [],
  };
}

// Words of a text that another lacks, by the longest common subsequence; long texts are compared at their beginning.
function marked(text, other) {
  const most = 600, words = (value) => value.slice(0, LONGEST).match(/\s+|[^\s]+/gu) || [];
  const a = words(text), b = words(other ?? "");
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end += 1;
  const mine = a.slice(start, a.length - end).slice(0, most), theirs = b.slice(start, b.length - end).slice(0, most);
  const rows = [new Uint16Array(theirs.length + 1)];
  for (let i = mine.length - 1; i >= 0; i -= 1) {
    const row = new Uint16Array(theirs.length + 1), below = rows[rows.length - 1];
    for (let j = theirs.length - 1; j >= 0; j -= 1) row[j] = mine[i] === theirs[j] ? below[j + 1] + 1 : Math.max(below[j], row[j + 1]);
    rows.push(row);
  }
  const box = make("bdi"), put = (part, is_new) => { if (part) box.append(is_new && part.trim() ? make("mark", {}, ...shown(part, LONGEST).childNodes) : shown(part, LONGEST)); };
  put(a.slice(0, start).join(""), false);
  let j = 0;
  mine.forEach((word, i) => {
    const row = rows[mine.length - i], below = rows[mine.length - 1 - i];
    while (j < theirs.length && mine[i] !== theirs[j] && row[j + 1] >= below[j]) j += 1;
    const is_common = j < theirs.length && word === theirs[j];
    put(word, !is_common);
    if (is_common) j += 1;
  });
  put(a.slice(start + mine.length).join(""), false);
  return box;
}

const case_link = (key, id) => `#run/${key}/case/${encodeURIComponent(well_formed(String(id)))}`;
const is_failure = (one) => !["passed", "completed", "skipped"].includes(case_outcome(one));

function text_block(name, text) {
  if (text === undefined || text === "") return null;
  return make("section", { class: "told", "aria-label": name }, make("h2", {}, name), make("pre", {}, shown(text, LONGEST)));
}

function conversation_block(messages) {
  const items = messages.slice(0, 500).map((message) => make("li", { class: ["user", "assistant", "system", "tool"].includes(message.role) ? `r-${message.role}` : null },
    make("span", { class: "role" }, shown(message.role, 40), field(message, "name") === undefined ? "" : make("span", {}, " ", shown(text_of(message.name), 80))),
    ...[content_text(field(message, "content") ?? field(message, "parts"))].filter(Boolean).map((text) => make("pre", {}, shown(text, LONGEST))), ...calls_of(message).map((call) => make("pre", { class: "call" }, "→ ", shown(call, 5000)))));
  return make("section", { class: "told", "aria-label": "Conversation" }, make("h2", {}, "Conversation"), make("ol", { class: "talk" }, ...items), messages.length > 500 ? make("p", { class: "muted" }, `and ${count(messages.length - 500)} more messages`) : null);
}

let case_keys = {};
let case_shown = { key: null, id: null, told: null, list: null };

async function show_case(key, id, is_again = false) {
  const run = by_key.get(key), mine = is_again ? shown_last : ++shown_last;
  await cases_ready;
  if (run !== undefined) await store.need(key);
  if (mine !== shown_last) return;
  const all = cases[key] || [], at = all.findIndex((one) => well_formed(String(one.case_id)) === id);
  if (run === undefined || at < 0) {
    say("This page has no case with that link. The link may belong to another page, or there was no room for the case.");
    return;
  }
  const one = all[at], outcome = case_outcome(one);
  $("#all").hidden = $("#run").hidden = true;
  $("#one").hidden = $("#case").hidden = false;
  mark_link("runs");
  const step = (index, text, name) => (index >= 0 && index < all.length ? make("a", { href: case_link(key, all[index].case_id), title: `Key: ${name}` }, text) : make("span", { class: "muted" }, text));
  const failures = all.map((other, index) => (is_failure(other) ? index : -1)).filter((index) => index >= 0), next_failure = failures.find((index) => index > at) ?? failures[0] ?? -1;
  case_keys = { p: at - 1, n: at + 1, f: next_failure };
  for (const [name, index] of Object.entries(case_keys)) case_keys[name] = index >= 0 && index < all.length ? case_link(key, all[index].case_id) : null;
  $("#case-steps").replaceChildren(make("a", { href: `#run/${key}` }, "Run ", shown(run.run_id, 100)), ` · case ${count(at + 1)} of ${count(all.length)} · `, step(at - 1, "previous", "p"), " · ", step(at + 1, "next", "n"), " · ", step(next_failure === at ? -1 : next_failure, "next failure", "f"));
  $("#h-case").replaceChildren("Case ", shown(one.case_id, 200));
  $("#case-outcome").replaceChildren(make("span", { class: `o-${outcome}` }, `${SIGNS[outcome]} `, shown(case_said(one), 60)), one.exception_type === null ? "" : make("span", {}, ": ", shown(one.exception_type, 200)));
  const list = store.is_live && run.events > LARGE ? null : list_of(key, run);
  if (list) await list.open();
  const found = store.is_live ? await store.events(key, String(one.case_id)) : null;
  if (mine !== shown_last) return;
  const events = (found ? items_of(found) : list ? list.events : []).filter((other) => is_of_case(other, one.case_id));
  const told = told_of(events.map(exact));
  const pass_at = list ? list.events.map((other) => field(other.event, "pass_at")).find((value) => typeof value === "number") : undefined;
  const totals = [["Score", one.score === null ? "–" : shown(exact_score(one.score), 60)], ["Model", one.model === null ? "–" : shown(one.model, 200)], ["Took", duration(one.duration)], ...told.tokens.map(([name, value]) => [name, count(Number(value))]), ["Node", shown(run.node)], ["Started", time_text(one.started)], ...(pass_at === undefined ? [] : [["Passes at", shown(pass_at, 40)]]), ...(one.attempts > 1 ? [["Ended", `${count(one.attempts)} times`]] : [])];
  $("#case-totals").replaceChildren(...totals.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const pair = [text_block("Expected", told.expected), text_block("Answer", told.answer)].filter(Boolean);
  const rest = told.others.length ? make("section", { class: "told" }, make("h2", {}, "Other fields"), make("div", { class: "detail" }, make("dl", {}, ...told.others.slice(0, 100).flatMap(([name, value]) => [make("dt", {}, shown(name, 100)), make("dd", {}, shown(value_text(value), 4000))])))) : null;
  const as_told = JSON.stringify(told);
  if (!is_again || as_told !== case_shown.told) $("#case-told").replaceChildren(...[text_block("Input", told.input), pair.length ? make("div", { class: "pair" }, ...pair) : null, told.messages ? conversation_block(told.messages) : null, ...told.traces.map((text) => text_block("Exception", text)), rest].filter(Boolean));
  const is_same = is_again && case_shown.key === key && case_shown.id === id && case_shown.list;
  case_shown = { key, id, told: as_told, list: is_same ? case_shown.list : null };
  if (is_same) {
    case_shown.list.add(found); // what the reader has filtered and unfolded stays
    return;
  }
  const box = make("div"), whole = { events: events.length, count: Math.max(one.events, events.length) };
  $("#case-events").replaceChildren(box);
  if (run.chosen) {
    case_shown.list = new EventList(box, key, `#run/${key}`, whole, query_of(run, one.case_id), (other) => is_of_case(other, one.case_id), found && (async () => found));
    case_shown.list.case_id = String(one.case_id);
    await case_shown.list.open();
  } else box.append(make("p", {}, "The events of this run are not in this page: ", make("code", {}, shown(query_of(run, one.case_id)))));
  const rows = await rows_of_others(key, one, told.answer);
  if (mine !== shown_last) return;
  $("#case-others").hidden = !rows.length;
  $("#case-others tbody").replaceChildren(...rows);
  $("#case-steps").dataset.of = case_link(key, one.case_id);
  if (is_again) return;
  window.scrollTo(0, 0);
  $("#h-case").focus({ preventScroll: true });
}

const MOST_OTHERS = 30, LARGE = 5000;

// The same case in other runs of its suite: the run, the case and its events; and in how many there are.
async function others_of(key, one) {
  const suite = by_key.get(key).suite, of_case = (items) => items.filter((item) => is_of_case(item, one.case_id));
  if (store.others) {
    const found = await store.others(key, String(one.case_id));
    return [found.others.filter((other) => by_key.has(other.key)).map((other) => [by_key.get(other.key), case_of(other.cases[0]), of_case(items_of(other))]), found.count];
  }
  const others = runs.filter((run) => run.key !== key && run.suite === suite && run.chosen).map((run) => [run, (cases[run.key] || []).find((other) => other.case_id === one.case_id)]).filter((pair) => pair[1]);
  const rows = others.slice(0, MOST_OTHERS);
  for (const row of rows) {
    const list = list_of(row[0].key, row[0]);
    await list.open();
    row.push(of_case(list.events));
  }
  return [rows, others.length];
}

async function rows_of_others(key, one, answer) {
  const [others, in_all] = await others_of(key, one), rows = [];
  for (const [run, other, items] of others) {
    const outcome = case_outcome(other), text = told_of(items.map(exact)).answer;
    rows.push(make("tr", { class: outcome === case_outcome(one) ? null : "differs" }, make("th", { scope: "row" }, make("a", { href: case_link(run.key, other.case_id) }, shown(run.run_id, 120))), make("td", {}, time_text(run.started)), make("td", {}, shown(run.node)), make("td", {}, other.model === null ? "–" : shown(other.model, 120)), make("td", { class: `o-${outcome}` }, `${SIGNS[outcome]} `, shown(case_said(other), 60)),
      make("td", { class: "n" }, other.score === null ? "–" : shown(exact_score(other.score), 40)), make("td", { class: "n" }, duration(other.duration)), make("td", { class: "text" }, text === undefined ? "–" : text === answer ? make("span", { class: "muted" }, "the same answer") : marked(short(text, 1500), answer === undefined ? text : answer))));
  }
  $("#case-others-left").textContent = in_all > others.length ? `${count(in_all - others.length)} more ${in_all - others.length === 1 ? "run has" : "runs have"} this case.` : "";
  return rows;
}

document.addEventListener("keydown", (event) => {
  if ($("#one").hidden || $("#case").hidden || event.ctrlKey || event.altKey || event.metaKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
  if (Object.hasOwn(case_keys, event.key) && case_keys[event.key]) location.hash = case_keys[event.key];
});
