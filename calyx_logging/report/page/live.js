// ------------------------------------------------------------------ a page that a server shows (calyx-telemetry view)

// Only the server's own page, whose templates escape everything, is parsed, and only here.
const trusted = window.trustedTypes ? window.trustedTypes.createPolicy("calyx-live", { createHTML: (html) => html }) : { createHTML: (html) => html };

const TRIES = 4;
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function ask(name, values = {}) {
  const query = new URLSearchParams(Object.entries(values).filter((pair) => pair[1] !== undefined));
  let answer = await fetch(`${name}?${query}`);
  for (let tried = 1; answer.status === 503 && tried < TRIES; tried += 1) { // too many questions at a time
    await pause(500 * tried);
    answer = await fetch(`${name}?${query}`);
  }
  if (answer.ok) return answer.json();
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error || `the server answers ${answer.status}`);
}

const needed = new Map(); // of a run: the promise of its cases
const outdated = new Set(); // runs that have changed since

Object.assign(store, {
  is_live: true,
  async first_cases() {
    Object.assign(facts, { processes: {}, envelopes: {} });
    const found = await ask("cases").catch((error) => { say_trouble(error); return {}; }); // each run is asked for when it is opened
    for (const [key, one] of Object.entries(found)) facts.case_counts[key] = one.case_count;
    return Object.fromEntries(Object.entries(found).map(([key, one]) => [key, one.cases]));
  },
  events: (key, case_id, first) => ask("events", { run: key, case: case_id, first }),
  others: (key, case_id) => ask("others", { run: key, case: case_id }),
  need(key) {
    if (outdated.delete(key)) needed.delete(key);
    if (!needed.has(key)) {
      const asked = ask("run", { run: key }).then((found) => {
        take_cases(key, found.cases);
        facts.case_counts[key] = found.case_count;
        facts.processes[key] = found.processes;
        facts.process_counts[key] = found.process_count;
        if (found.envelope !== null) facts.envelopes[key] = found.envelope;
      });
      needed.set(key, asked);
      asked.catch(() => needed.delete(key)); // to be asked again
    }
    return needed.get(key);
  },
  more_cases(key) {
    const button = make("button", { type: "button" }, "Load more");
    button.addEventListener("click", async () => {
      button.disabled = true;
      const before = cases[key].length, found = await ask("run", { run: key, first: before });
      cases[key].push(...found.cases.map(case_of));
      $("#case-said").replaceChildren(cases[key].length < found.case_count ? `The first ${count(cases[key].length)} of ${count(found.case_count)} cases. ` : "", cases[key].length < found.case_count ? store.more_cases(key) : "");
      case_table.renew(cases[key]);
    });
    return make("span", {}, " ", button);
  },
  // Shows an event that the list lacks, such as one in the middle of a long run, above it.
  async find(list, id) {
    const found = items_of(await ask("events", { run: list.key, id })).slice(0, 10);
    if (!found.length) return false;
    for (const one of found) list.unfolded.add(one.line);
    const rows = make("ol", { class: "list" }, ...found.map((one) => list.row(one))), old = $("#run-found");
    if (old) old.remove();
    $("#run-events").prepend(make("section", { id: "run-found", "aria-label": "The event" }, make("p", { class: "muted" }, "The event that this link leads to, from the part of the run that is not loaded:"), rows));
    rows.scrollIntoView({ block: "center" });
    $(".line", rows).focus({ preventScroll: true });
    return true;
  },
  // What was written since the page was made has come already, or will.
  opened(list) {
    if (live_list && list.is_run && !list.only) hand_on(live_list.events);
  },
  put_rows(body, rows) {
    const fresh = document.createElement("tbody");
    fresh.append(...rows);
    morph_children(body, fresh);
  },
  shown(section) {
    for (const box of section.querySelectorAll(".events")) {
      const list = lists.get(box.dataset.blob);
      if (list && !list.ready) list.open().catch(say_trouble);
      else if (list && list.is_outdated) renew_list(list);
    }
    if (live_list && section.id === "live") live_list.draw();
  },
});

// ------------------------------------------------------------------ update the page where the new one differs

const key_of = (node) => {
  if (node.nodeType !== 1) return `#${node.nodeType}`;
  const head = node.tagName === "TR" ? $("th[scope=row]", node) : null;
  return node.id ? `#${node.id}` : head ? `${node.tagName} ${head.textContent}` : node.tagName;
};
const is_added = (node) => node.nodeType === 1 && node.classList.contains("unfold");
const next_of = (node) => { let next = node.nextSibling; while (next && is_added(next)) next = next.nextSibling; return next; };

function morph_children(old, fresh) {
  const left = new Map();
  for (const node of [...old.childNodes]) {
    if (is_added(node)) continue;
    const key = key_of(node);
    if (!left.has(key)) left.set(key, []);
    left.get(key).push(node);
  }
  const pairs = [...fresh.childNodes].map((node) => [(left.get(key_of(node)) || []).shift(), node]);
  for (const nodes of left.values()) for (const node of nodes) node.remove();
  let at = null;
  for (const [mine, theirs] of pairs) {
    const placed = mine || document.importNode(theirs, true);
    if (mine) morph(mine, theirs);
    const next = at ? next_of(at) : [...old.childNodes].find((node) => !is_added(node)) || null;
    if (placed !== next) old.insertBefore(placed, next);
    at = placed;
  }
}

// Leaves attributes that scripts set, and whatever is marked data-own, alone.
function morph(old, fresh) {
  if (old.nodeType !== 1) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  if (old.hasAttribute("data-own")) return;
  if (!old.matches("section, details, table, .scroll")) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.tagName === "TABLE" && old.tHead && fresh.tHead && old.tHead.textContent === fresh.tHead.textContent) {
    const sorted = [...old.tHead.rows[0].cells].findIndex((head) => head.hasAttribute("aria-sort"));
    if (sorted >= 0) sort_rows(fresh, sorted, old.tHead.rows[0].cells[sorted].getAttribute("aria-sort") === "descending");
    morph_children(old.tBodies[0], fresh.tBodies[0]);
    return;
  }
  if (old.tagName === "TABLE") begun_tables.delete(old); // with other columns: it gets new heads
  morph_children(old, fresh);
}

let renewing = null, is_renewal_due = false;

function renew() {
  is_renewal_due = true;
  renewing ??= (async () => {
    while (is_renewal_due) {
      is_renewal_due = false;
      await renew_once();
    }
  })().catch(say_trouble).finally(() => { renewing = null; });
}

async function renew_once() {
  const answer = await fetch("./");
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(trusted.createHTML(await answer.text()), "text/html");
  if (!$("#facts", fresh)) return; // a server that has just been started is making its first page
  const told = JSON.parse($("#facts", fresh).textContent);
  await cases_ready;
  const before = new Map(runs.map((run) => [run.key, JSON.stringify(run)]));
  const counts = facts.case_counts;
  for (const name of Object.keys(told)) if (!["processes", "envelopes", "process_counts", "blobs"].includes(name)) facts[name] = told[name];
  facts.case_counts = { ...counts, ...told.case_counts };
  take_runs(told);
  const there = new Set(told.runs.map((row) => row[0]));
  const gone = told.live.runs <= there.size ? runs.filter((run) => !there.has(run.key)).map((run) => run.key) : [];
  if (gone.length) drop_runs(there);
  const changed = new Set(runs.filter((run) => before.get(run.key) !== JSON.stringify(run)).map((run) => run.key));
  for (const key of changed) if (needed.has(key)) outdated.add(key);
  const old_case = open_case();
  show_times(fresh);
  for (const section of document.querySelectorAll("#all > section")) {
    const other = fresh.getElementById(section.id);
    if (other) morph(section, other);
  }
  begin_tables();
  $("#activity").setAttribute("aria-label", $("#activity-said") ? $("#activity-said").textContent : "");
  list_nodes();
  if (changed.size || gone.length) {
    draw_line();
    filter_runs(true);
    say_runs_left();
  }
  draw_charts();
  if (can_be_compared().length > 1) {
    if (!compared.length) begin_compare();
    if (compared.some((key) => changed.has(key)) && $("#compare").classList.contains("here")) await draw_compare();
  }
  for (const key of ["errors", "outside"]) {
    const list = lists.get(key), box = list && list.box.closest("section");
    if (!list || !list.ready) continue;
    if (box.classList.contains("here") && !$("#all").hidden) renew_list(list);
    else list.is_outdated = true;
  }
  compared = compared.filter((key) => by_key.has(key));
  if (gone.includes(parts_of_link()[1])) {
    location.hash = "#runs";
    say("The run you had open is no longer there.");
    return;
  }
  await renew_one(changed, old_case);
}

function renew_list(list) {
  list.is_outdated = false;
  list.ready.then(() => store.events(list.key)).then((found) => list.add(found)).catch(say_trouble);
}

const parts_of_link = () => location.hash.slice(1).split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });

// The case that is shown, as it is now.
function open_case() {
  const [what, key, other, id] = parts_of_link();
  return what === "run" && other === "case" && !$("#case").hidden ? JSON.stringify((cases[key] || []).find((one) => well_formed(String(one.case_id)) === id)) : null;
}

// Updates the run or case that is open if it has changed, and keeps what the reader has expanded.
async function renew_one(changed, old_case) {
  const [what, key, other, id] = parts_of_link();
  if (what !== "run" || !changed.has(key) || $("#one").hidden) return;
  if (other !== "case") {
    await show_run(key, undefined, undefined, true);
    await complete(lists.get(key), by_key.get(key));
  }
  else {
    await store.need(key);
    if (open_case() !== old_case) await show_case(key, id, true);
  }
}

// A list that lacks events, because more came than the page holds, is read again.
async function complete(list, run) {
  if (!list || !list.ready) return;
  await list.ready;
  if (list.counts.count >= run.events) return;
  const found = await list.fetch();
  if (found.gap === null) {
    list.add(found);
    return;
  }
  const said = list.level ? [list.level.value, list.source.value, list.of_case.value, list.text.value] : null, focus = document.activeElement.getAttribute("aria-label");
  const is_inside = list.box.contains(document.activeElement);
  await list.load();
  list.known = null;
  if (said) [list.level.value, list.source.value, list.of_case.value, list.text.value] = said;
  hand_on(live_list ? live_list.events : []);
  list.draw();
  const again = is_inside && focus ? [...list.box.querySelectorAll("select, input")].find((control) => control.getAttribute("aria-label") === focus) : null;
  if (again) again.focus({ preventScroll: true });
}

function say_runs_left() {
  const box = $("#runs-left");
  if (!box) return;
  const left = facts.live.runs - runs.length;
  box.textContent = left > 0 ? `${count(left)} more` : "";
  $("#runs-older").hidden = left <= 0;
}

document.addEventListener("click", async (event) => {
  if (event.target.id !== "runs-older") return;
  event.target.disabled = true;
  try {
    const found = await ask("runs", { first: runs.length });
    take_runs(found);
    for (const [key, cases_of_run] of found.runs.map((row) => [row[0], row[NAMES.indexOf("cases")]])) facts.case_counts[key] ??= cases_of_run;
    draw_line();
    list_nodes();
    filter_runs(true);
    draw_charts();
    say_runs_left();
  } catch (error) {
    say_trouble(error);
  }
  event.target.disabled = false;
});

// ------------------------------------------------------------------ events as they arrive

class LiveList extends EventList {
  constructor(box) {
    super(box, "live", "#live", { events: 0, count: 0 }, null);
    Object.assign(this, { ids: new Map(), known: new Set(), received: 0, skipped: 0, fresh: [], frozen: null, held: 0, is_paused: false, timer: null, rates: [], most: 100 });
    this.ready = Promise.resolve();
    this.level = make("select", { "aria-label": "Level" }, make("option", { value: "" }, "Level: all"), ...LEVELS.slice(1).map((value) => make("option", { value }, `${value} or worse`)));
    this.text = make("input", { type: "search", placeholder: "Text", "aria-label": "Text" });
    this.pause = make("button", { type: "button", "aria-pressed": "false" }, "Pause");
    this.said = make("p", { class: "muted", id: "live-said" });
    this.list = make("ol", { class: "list many" });
    this.further = make("button", { type: "button", class: "events-more" });
    this.further.addEventListener("click", () => { this.most += 400; this.draw(); });
    for (const control of [this.level, this.text]) control.addEventListener("input", () => this.draw());
    this.pause.addEventListener("click", () => {
      this.is_paused = !this.is_paused;
      this.frozen = this.is_paused ? [...this.events] : null;
      this.held = 0;
      this.pause.setAttribute("aria-pressed", String(this.is_paused));
      this.pause.textContent = this.is_paused ? "Resume" : "Pause";
      this.draw();
    });
    const tools = make("form", { class: "tools", role: "search" }, this.level, this.text, this.pause);
    tools.addEventListener("submit", (event) => event.preventDefault());
    box.replaceChildren(tools, this.said, this.list, this.further);
    setInterval(() => this.tell(), 1000);
    this.tell();
  }
  take(lines, is_new) {
    const fresh = items_of({ lines: lines.filter((line) => !this.known.has(line)) });
    for (const one of fresh) this.known.add(one.line);
    this.events.push(...fresh);
    if (this.is_paused) this.held += fresh.length;
    else this.fresh.push(...fresh);
    this.received += fresh.length;
    if (is_new) this.rates.push([Date.now(), fresh.length]); // others were written before
    for (const one of this.events.splice(0, Math.max(0, this.events.length - MOST_HELD / 2))) {
      this.known.delete(one.line);
      if (!this.is_paused) this.unfolded.delete(one.line);
    }
    this.fresh.splice(0, Math.max(0, this.fresh.length - MOST_HELD / 2));
    this.timer ??= setTimeout(() => { this.timer = null; this.put(); }, 200);
    return fresh;
  }
  // New rows go on top; rows that are there stay as they are, until there are too many.
  put() {
    if (this.is_paused || !this.is_seen()) return;
    const rows = this.fresh.filter((one) => this.matches(one)).slice(-this.most).reverse().map((one) => this.row(one));
    this.fresh = [];
    this.list.prepend(...rows);
    while (this.list.children.length > this.most) this.list.lastChild.remove();
    this.tell();
  }
  is_seen() {
    return this.box.offsetWidth > 0;
  }
  wanted() {
    return (this.frozen || this.events).filter((one) => this.matches(one)).reverse();
  }
  draw() {
    if (!this.is_seen()) return;
    this.fresh = [];
    this.list.replaceChildren(...this.wanted().slice(0, this.most).map((one) => this.row(one)));
    this.tell();
  }
  tell() {
    if (!this.is_seen()) return;
    const now = Date.now();
    this.rates = this.rates.filter(([at]) => at > now - 5000);
    const rate = this.rates.reduce((sum, [, events]) => sum + events, 0) / 5, last = this.events[this.events.length - 1];
    const age = last ? (now - Date.parse(field(last.event, "ts_utc"))) / 1000 : NaN;
    const pace = rate >= 1 ? `${count(Math.round(rate))} a second` : age > 10 ? `the last ${age < 60 ? `${Math.round(age)} s` : duration(age)} ago` : "";
    const dropped = this.skipped ? `${counted(this.skipped, "event")} came too fast for this page; they are in the outbox` : "";
    const kept = this.received > this.events.length ? `the last ${count(this.events.length)} are kept here` : "";
    const held = this.held ? `${counted(this.held, "new event")} while paused` : "";
    const text = [counted(this.received, "event"), pace, kept, dropped, held].filter(Boolean).join(", ");
    if (this.said.textContent !== text) this.said.textContent = text;
    const left = this.wanted().length - this.most;
    this.further.hidden = left <= 0;
    this.further.textContent = `Show more (${count(left)} left)`;
  }
  detail(one) {
    const box = super.detail(one), link = $("a", box);
    if (link) link.remove(); // to itself: it does not stay here
    return box;
  }
}

let live_list = null, session = null;

function say_state(state, text) {
  const box = $("#live-state"), words = { on: "● live", off: "○ not connected" };
  if (box.dataset.state === state) return;
  box.dataset.state = state;
  box.replaceChildren(make("span", { class: state === "on" ? "good" : "bad" }, words[state]), text ? make("span", { class: "muted" }, ` ${text}`) : "");
}

// Events of one of the runs whose list is open are put into it.
function hand_on(fresh) {
  const of_lists = new Map();
  for (const one of fresh) {
    const run = run_of_event(one.event), list = run && lists.get(run.key);
    if (!list || !list.ready) continue;
    if (!of_lists.has(list)) of_lists.set(list, []);
    of_lists.get(list).push(one.line);
  }
  for (const [list, lines] of of_lists) list.ready.then(() => list.add({ lines }));
}

let heard_last = "", heard_next = 1, trouble_said = "";

// What the stream says; `id` is that of the last event.
function heard(name, data, id) {
  if (name === "hello") {
    if (session && session !== data.session) facts.live.version = 0; // another server has been started in its place
    session = data.session;
    heard_next = data.next;
    say_state("on");
  } else if (name === "lines") {
    heard_last = id || heard_last;
    if (live_list) hand_on(live_list.take(data.lines, data.first >= heard_next));
  } else if (name === "skipped") {
    if (live_list) live_list.skipped += data;
  } else if (name === "changed") {
    if (data !== facts.live.version) renew();
  } else if (name === "trouble") {
    if (data) say(data);
    else if ($("#trouble").textContent === trouble_said) $("#trouble").hidden = true;
    trouble_said = data;
  } else if (name === "gone") say_state("off", "The server has stopped or has a new address. This page keeps what it has.");
}

const HEARD = ["hello", "lines", "skipped", "changed", "trouble"];

function connect(tell) {
  const stream = new EventSource(`live?after=${heard_last}`);
  for (const name of HEARD) stream.addEventListener(name, (event) => tell(name, JSON.parse(event.data), event.lastEventId));
  stream.addEventListener("error", () => {
    tell("gone", null, "");
    stream.close();
    setTimeout(() => connect(tell), 2000);
  });
}

// Browsers limit connections to a host, so one tab listens and passes everything on to the others. If it is closed, another
// takes over.
async function listen() {
  const name = `calyx-live ${location.pathname}`, is_shared = typeof BroadcastChannel === "function" && navigator.locks !== undefined;
  const channel = is_shared ? new BroadcastChannel(name) : null;
  if (channel) channel.addEventListener("message", (event) => heard(...event.data));
  const recent = await ask("recent").catch(() => null);
  if (recent) {
    heard("hello", { session: recent.session, next: Infinity }, "");
    heard("lines", recent, recent.id);
    heard_next = 1;
    if (recent.page) heard("changed", recent.page, "");
  }
  if (!channel) connect(heard);
  else navigator.locks.request(name, () => new Promise(() => connect((...told) => { channel.postMessage(told); heard(...told); })));
}

function begin_live() {
  const box = $("#live-events");
  if (box) {
    live_list = new LiveList(box);
    lists.set("live", live_list);
  }
  listen();
}
