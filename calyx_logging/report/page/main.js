// ------------------------------------------------------------------ runs: the table, one run, two side by side

const NAMES = ["key", "node", "suite", "run_id", "instance", "started", "ended", "events", "errors", "cases", "completed", "skipped", "judged", "passed", "scores", "mean_score", "expected", "exit_status", "outcome", "duration", "chosen"];
const runs = [];
const by_key = new Map();
const by_id = new Map();

// Runs that have gone since.
function drop_runs(there) {
  for (const run of runs.filter((one) => !there.has(one.key))) {
    runs.splice(runs.indexOf(run), 1);
    by_key.delete(run.key);
    by_id.delete(JSON.stringify([run.node, run.suite, run.run_id, run.instance]));
    delete cases[run.key];
  }
}

// Runs that are new are added, others get their new values.
function take_runs(found) {
  for (const row of found.runs) {
    const told = Object.fromEntries(NAMES.map((name, index) => [name, row[index]]));
    told.node = found.nodes[told.node];
    const run = by_key.get(told.key) || {};
    if (!by_key.has(told.key)) runs.push(run);
    Object.assign(run, told);
    by_key.set(run.key, run);
    by_id.set(JSON.stringify([run.node, run.suite, run.run_id, run.instance]), run);
  }
  runs.sort((a, b) => (b.ended ?? 0) - (a.ended ?? 0));
}
take_runs(facts);

function run_of_event(event) {
  const text = (name) => { const value = field(event, name); return value === undefined || value === null ? null : text_of(value); };
  return by_id.get(JSON.stringify([text("node_id"), text("suite"), text("run_id"), text("run_instance_id")])) || null;
}

const PAPER = 680; // pixels that are wide on any paper
let line = null;
let run_table = null;

function run_row(run) {
  return make("tr", { class: run.chosen ? "chosen" : null }, outcome_cell(run.outcome),
    make("td", {}, make("a", { href: `#run/${run.key}` }, shown(run.run_id || "(empty)", 120))), make("td", {}, shown(run.node)),
    make("td", {}, run.suite === null ? "–" : shown(run.suite, 120)), make("td", {}, time_text(run.started)),
    make("td", { class: "n" }, duration(run.duration)), result_cell(run),
    make("td", { class: "n" }, count(run.errors)), make("td", { class: "n" }, count(run.events)));
}

function filter_runs(is_again = false) {
  const form = $("#run-filter").elements, text = form.text.value.toLowerCase();
  const found = runs.filter((run) => (!form.outcome.value || run.outcome === form.outcome.value) && (!form.node.value || run.node === form.node.value) &&
    (!text || `${run.suite} ${run.run_id} ${run.instance} ${run.node}`.toLowerCase().includes(text)));
  $("#run-count").textContent = `${count(found.length)} of ${count(runs.length)} runs${found.length ? "" : ": none is as the filters say"}`;
  if (is_again) run_table.renew(found);
  else run_table.show(found);
  if (line) line.only(found);
}

function draw_line() {
  if (line) line.take(runs);
  else if (runs.some((run) => run.started !== null)) {
    line = new TimeLine($("#timeline"), runs, (run) => { location.hash = `#run/${run.key}`; });
    line.cases = cases;
  }
  if (!line) $("#timeline").replaceChildren(make("p", { class: "muted" }, "No run has a time."));
}

function list_nodes() {
  const select = $("#run-filter").elements.node, there = new Set([...select.options].map((option) => option.value));
  for (const node of [...new Set(runs.map((run) => run.node))].filter((name) => !there.has(name)).sort(compare_values)) select.append(make("option", { value: node }, visible(node)));
}

function begin_runs() {
  if (!$("#run-table")) return;
  run_table = new GrowingTable($("#run-table"), $("#run-more"), run_row, (run, by) => (by === "rate" ? (run.judged ? run.passed / run.judged : run.mean_score) : run[by]), 30);
  const form = $("#run-filter");
  list_nodes();
  form.addEventListener("input", () => filter_runs());
  form.addEventListener("submit", (event) => event.preventDefault());
  filter_runs();
  draw_line();
}

// ------------------------------------------------------------------ one run

const CASE_NAMES = ["case_id", "started", "ended", "outcome", "passed", "attempts", "events", "errors", "duration", "score", "model", "exception_type"];
const cases = {};
let case_table = null;
const lists = new Map();

// A case that logs nothing before its end began as long before that as it says that it took.
function case_of(row) {
  const one = Object.fromEntries(CASE_NAMES.map((name, index) => [name, row[index]]));
  if (one.started !== null && one.duration !== null && one.attempts === 1) one.started = Math.min(one.started, one.ended - one.duration * 1000);
  return one;
}

async function begin_cases() {
  for (const [key, rows] of Object.entries(await store.first_cases())) take_cases(key, rows);
  if (line) { line.cases = cases; draw_charts(); }
}

function take_cases(key, rows) {
  const is_fine = (one) => ["passed", "completed"].includes(case_outcome(one));
  cases[key] = rows.map(case_of);
  cases[key].in_layers = [...cases[key]].sort((a, b) => is_fine(b) - is_fine(a)); // on the time line those that failed lie on top
}

// That a case passed is the harness's word; without it, it completed.
const case_said = (one) => (one.outcome === null ? (one.attempts ? "ended, no outcome" : "has not ended") : one.outcome !== "completed" ? one.outcome : one.passed === null ? "completed" : one.passed ? "passed" : "not passed");

function case_row(one) {
  const outcome = case_outcome(one), said = case_said(one);
  const why = one.exception_type === null ? "" : make("span", { class: "muted" }, " ", shown(one.exception_type, 80));
  return make("tr", {}, make("td", { class: `o-${outcome}` }, `${SIGNS[outcome]} `, shown(said, 60), why, one.attempts > 1 ? make("span", { class: "muted" }, ` (${one.attempts} times)`) : ""),
    make("th", { scope: "row" }, make("a", { href: case_link(case_table.key, one.case_id) }, shown(one.case_id, 200))), make("td", {}, one.model === null ? "–" : shown(one.model, 120)), make("td", {}, time_text(one.started)),
    make("td", { class: "n" }, duration(one.duration)), make("td", { class: "n" }, one.score === null ? "–" : shown(exact_score(one.score), 40)), make("td", { class: "n" }, count(one.errors)), make("td", { class: "n" }, count(one.events)));
}

// A run's name for a command; RUN where it cannot be typed.
function name_of(run) {
  const name = run.instance ?? run.run_id;
  return name.search(UNSEEN) >= 0 || name.length > 100 ? "RUN" : name;
}

function query_of(run, case_id = null) {
  const of_case = case_id === null || String(case_id).search(UNSEEN) >= 0 ? "" : ` AND case_id = '${String(case_id).replace(/'/g, "''")}'`;
  const said = name_of(run), field = run.instance === null ? "run_id" : "run_instance_id";
  return `${facts.query} ${quoted(`SELECT * FROM events WHERE ${field} = '${said.replace(/'/g, "''")}'${of_case} ORDER BY ts`)}`;
}

const score_of = (one) => (one.score === null ? null : isNaN(Number(one.score)) ? one.score : Number(one.score));

let shown_last = 0; // counts what was asked for, so that what comes late does not show

// The events of a run that is in the page.
function list_of(key, run) {
  if (!run.chosen) return null;
  if (!lists.has(key)) lists.set(key, new EventList(make("div"), key, `#run/${key}`, facts.blobs[key], query_of(run)));
  return lists.get(key);
}

async function show_run(key, event_id, nth, is_again = false) {
  const run = by_key.get(key);
  if (run === undefined) {
    say("This page has no run with that link; it may be another page's.");
    return;
  }
  $("#all").hidden = $("#case").hidden = true;
  $("#one").hidden = $("#run").hidden = false;
  mark_link("runs");
  if (!is_again) $("#h-run").replaceChildren("Run ", shown(run.run_id, 200));
  const mine = is_again ? shown_last : ++shown_last;
  const has_ended = run.exit_status !== null, broken = run.cases - run.completed - run.skipped;
  await cases_ready;
  await store.need(key);
  const processes = facts.processes[key] || [], was_killed = processes.length > 0 && processes.every((one) => one.reason === "recovered");
  const how = [broken ? `${count(broken)} of its ${count(run.cases)} cases did not complete` : "", run.exit_status === "normal" ? (broken ? "" : "it ended normally") : `its exit status is ${visible(run.exit_status ?? "").slice(0, 80)}`].filter(Boolean);
  const verdict = has_ended ? how.join(", and ") : was_killed ? "its process was killed" : "its end was not seen: it is still running, or was killed";
  $("#run-said").replaceChildren(make("span", { class: `o-${run.outcome}` }, `${SIGNS[run.outcome]} ${run.outcome}`), `: ${verdict}`);
  const totals = [["Node", shown(run.node)], ["Suite", run.suite === null ? "–" : shown(run.suite, 200)], ["Instance", run.instance === null ? "–" : shown(run.instance, 200)], ["Started", time_text(run.started)], [has_ended ? "Ended" : "Last event", time_text(run.ended)], [has_ended ? "Took" : "Duration so far", duration(run.duration)],
    ["Cases completed", run.cases ? `${count(run.completed)} of ${count(Math.max(run.cases, run.expected ?? 0))}` : "no cases"], ...(run.judged ? [["Cases passed", `${percent(run.passed / run.judged)}, ${count(run.passed)} of ${count(run.judged)}`]] : []), ...(run.scores ? [["Mean score", `${score(run.mean_score)}, n ${count(run.scores)}`]] : []), ["Errors", count(run.errors)], ["Events", count(run.events)]];
  $("#run-totals").replaceChildren(...totals.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  if (mine !== shown_last) return; // another run or case has been asked for meanwhile
  show_processes(key);
  show_envelope(key);
  const found = cases[key] || [], in_all = facts.case_counts[key] || 0;
  case_table ??= new GrowingTable($("#case-table"), $("#case-more"), case_row, (one, by) => (by === "score" ? score_of(one) : by === "outcome" ? case_outcome(one) : one[by]));
  case_table.key = key;
  if (is_again) case_table.renew(found);
  else case_table.show(found);
  const ends = found.reduce((sum, one) => sum + one.attempts, 0), again = found.filter((one) => one.attempts > 1).length;
  const missing = !run.chosen || found.length < in_all;
  $("#case-said").replaceChildren(!run.chosen ? "The cases of this run are not in this page." : missing ? `The first ${count(found.length)} of ${count(in_all)} cases.` : !found.length ? "None of its events bears a case_id." : again ? `${count(again)} ended several times: ${count(found.length)} cases, ${count(ends)} ends, each of which counts.` : "",
    missing ? (store.more_cases ? store.more_cases(key) : make("span", {}, " All: ", make("code", {}, shown(facts.query_cases)))) : "");
  $("#case-table").hidden = !found.length;
  const box = $("#run-events");
  if (is_again) return;
  if (!run.chosen) {
    box.replaceChildren(make("p", {}, "The events of this run are not in this page. See them by ", make("code", {}, shown(`${facts.report} --run ${quoted(name_of(run))}`)), ", or ask: ", make("code", {}, shown(query_of(run)))));
  } else {
    const list = list_of(key, run);
    box.replaceChildren(list.box);
    await list.open();
    if (mine !== shown_last) return;
    if (event_id !== undefined) {
      if (!(await list.go(event_id, nth)) && !(store.find && (await store.find(list, event_id)))) say(`This page has no event ${visible(event_id).slice(0, 100)} of this run.`);
      return;
    }
  }
  window.scrollTo(0, 0);
  $("#h-run").focus({ preventScroll: true });
}

// What ran, on what, and how it ended: by the start, environment and end lines.
function show_processes(key) {
  const processes = facts.processes[key] || [], in_all = facts.process_counts[key] || 0, box = $("#run-processes");
  box.hidden = !processes.length;
  if (!processes.length) return;
  const hosts = [...new Set(processes.map((one) => one.host))].filter((host) => host !== null);
  $("summary", box).replaceChildren(`${count(in_all)} ${in_all === 1 ? "process" : "processes"}`, ...(hosts.length ? [" on ", shown(hosts.join(", "), 200)] : []));
  $("div", box).replaceChildren(
    ...processes.map((one) => make("dl", { class: "totals" }, ...process_facts(one).filter((fact) => fact[1] !== null).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))))),
    make("p", { class: "muted" }, in_all > processes.length ? `The first ${count(processes.length)} of ${count(in_all)}. ` : "", "All: ", make("code", {}, shown(facts.query_processes))),
  );
}

function process_facts(one) {
  const text = (value) => (value === null ? null : shown(value, 300));
  const commit = one.git_commit === null ? null : `${visible(one.git_commit).slice(0, 12)}${one.git_dirty === "true" ? ", changed since" : ""}`;
  const cpus = one.cpus === null ? null : `${count(one.cpus)} × ${visible(one.cpu ?? "unknown").slice(0, 100)}`;
  return [["Program", text(one.program)], ["Process", one.pid === null ? null : `${visible(one.pid)}, writer ${visible(one.process)}`], ["Host", text(one.host)], ["User", text(one.user)],
    ["Python", text(one.python)], ["System", text(one.platform)], ["Folder", text(one.cwd)], ["Commit", commit], ["Processors", cpus],
    ["Memory", one.memory_bytes === null ? null : `${(one.memory_bytes / 2 ** 30).toFixed(1)} GiB`], ["Began", time_text(one.ts)], ["Ended", one.ended === null ? "not seen" : one.reason === "recovered" ? `not seen; found killed at ${time_text(one.ended)}` : time_text(one.ended)], ["How", how_ended(one)]];
}

function how_ended(one) {
  if (one.reason === null) return null;
  const more = [["signal", one.signal], ["exit code", one.exit_code], ["", one.exception_type]].filter((pair) => pair[1] !== null);
  return shown([one.reason === "recovered" ? "killed" : one.reason, ...more.map(([name, value]) => `${name} ${value}`.trim())].join(", "), 200);
}

function show_envelope(key) {
  const envelope = facts.envelopes[key], box = $("#run-envelope");
  box.hidden = envelope === undefined;
  if (envelope !== undefined) $("div", box).replaceChildren(make("pre", {}, shown(typeof envelope === "string" ? envelope : JSON.stringify(envelope, null, 1), 20000)));
}

// ------------------------------------------------------------------ the page: where one is, its zone and colours

async function go() {
  const parts = location.hash.slice(1).split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  const [what, one, other, nth] = parts;
  $("#trouble").hidden = true;
  if (what === "run") {
    if (other === "case") await show_case(one, nth);
    else await (other === "event" ? show_run(one, nth, Number(parts[4]) || 1) : show_run(one));
    return;
  }
  shown_last += 1;
  $("#all").hidden = false;
  $("#one").hidden = true;
  show_section(what);
  if (what === "compare") {
    await cases_ready;
    const keys = parts.slice(1).filter((key) => by_key.has(key));
    if (keys.length > 1 && keys.join() !== compared.join()) compare_all(keys);
    else if (compared.length) await (store.is_live ? draw_compare() : draw_curves());
  }
  if ((what === "errors" || what === "outside") && one === "event" && other !== undefined) {
    if (await lists.get(what).go(other, Number(nth) || 1, parts[4])) return;
    say(`This page has no event ${visible(other).slice(0, 100)}.`);
  }
}

function mark_link(id) {
  for (const link of document.querySelectorAll(".top nav a")) {
    if (link.getAttribute("href") === `#${id}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

// One section at a time, as its link says; without scripts, and on paper, all of them.
function show_section(what) {
  const named = document.getElementById(what === "outside" ? "health" : what || "overview");
  const section = named && named.tagName === "SECTION" && $("#all").contains(named) ? named : $("#overview");
  const is_new = !section.classList.contains("here");
  for (const one of document.querySelectorAll("#all > section")) one.classList.toggle("here", one === section);
  mark_link(section.id);
  if (store.shown) store.shown(section);
  if (!is_new) return;
  window.scrollTo(0, 0);
  draw_charts();
}

// A chart that is not seen has no width.
function draw_charts() {
  if (line && $("#timeline").offsetWidth) line.draw();
  if ($("#activity") && $("#activity").offsetWidth) draw_activity();
}

function again() {
  show_times();
  draw_charts();
  if (run_table) run_table.draw();
  if (compared.length && !$("#all").hidden) draw_compare();
  for (const list of lists.values()) if (list.list) list.draw();
  if (!$("#one").hidden) go();
}

// The reader's choices hold for the next page, too, where the browser keeps such things for a file.
function remembered() {
  try { return Object(JSON.parse(localStorage.getItem("calyx-report"))); } catch { return {}; }
}

function remember(choices) {
  try { localStorage.setItem("calyx-report", JSON.stringify(choices)); } catch { /* they hold for this page */ }
}

function begin_choices() {
  const select = $("#zone"), known = typeof Intl.supportedValuesOf === "function" ? Intl.supportedValuesOf("timeZone") : [];
  const mine = Intl.DateTimeFormat().resolvedOptions().timeZone;
  select.append(make("option", { value: "local" }, `here (${mine})`), ...known.filter((name) => name !== "UTC").map((name) => make("option", { value: name }, name)));
  const theme = $("#theme"), before_now = remembered();
  const choose = (box, value, otherwise) => { box.value = [...box.options].some((option) => option.value === value) ? value : otherwise; };
  choose(select, before_now.zone, "UTC");
  choose(theme, before_now.theme, "auto");
  const paint = () => {
    if (theme.value === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme.value;
  };
  use_zone(select.value);
  paint();
  if (select.value !== "UTC") show_times();
  select.addEventListener("change", () => { remember({ zone: select.value, theme: theme.value }); use_zone(select.value); again(); });
  theme.addEventListener("change", () => { remember({ zone: select.value, theme: theme.value }); paint(); draw_charts(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw_charts);
  let before = null, unfolded = [];
  window.addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    unfolded = [...document.querySelectorAll("details:not([hidden], [open])")];
    for (const details of unfolded) details.open = true;
    $("#all").classList.remove("tabs");
    draw_charts();
    for (const chart of charts.values()) {
      chart.resize({ width: PAPER });
      chart.getZr().flush(); // it would draw in the next frame, which paper has not
    }
  });
  window.addEventListener("afterprint", () => {
    for (const details of unfolded) details.open = false;
    $("#all").classList.add("tabs");
    if (before === undefined) delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = before;
    draw_charts();
  });
  let waiting = null;
  window.addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw_charts, 150); });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !$("#one").hidden && !/^(INPUT|SELECT)$/.test(event.target.tagName)) location.hash = $("#case").hidden ? "#runs" : location.hash.split("/case/")[0]; });
}

$("#all").classList.add("tabs");
begin_choices();
// A table that goes on to the right of what is seen says so.
const wide = new ResizeObserver((entries) => requestAnimationFrame(() => {
  for (const { target } of entries) {
    const box = target.closest(".scroll");
    if (box) box.classList.toggle("more", box.scrollWidth > box.clientWidth + 1);
  }
}));
const begun_tables = new WeakSet();

function begin_tables() {
  for (const table of document.querySelectorAll("table.plain")) {
    if (!begun_tables.has(table)) sortable(table, (column, descending) => { sort_rows(table, column, descending); fold(table); });
    begun_tables.add(table);
    fold(table);
  }
  for (const box of document.querySelectorAll(".scroll, .scroll > table")) wide.observe(box);
}
begin_tables();
begin_runs();
show_section(location.hash.slice(1).split("/")[0]);
for (const box of document.querySelectorAll(".events")) {
  const key = box.dataset.blob, list = new EventList(box, key, `#${key}`, facts.blobs[key], box.dataset.query);
  lists.set(key, list);
  if (!store.is_live) list.open();
}
if (store.is_live) begin_live();
const cases_ready = begin_cases().then(begin_compare);
window.addEventListener("hashchange", go);
const ready = cases_ready.then(go).then(() => { document.documentElement.dataset.ready = "yes"; });
