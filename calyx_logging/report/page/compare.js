// ------------------------------------------------------------------ runs beside a base, case by case

const MOST_COMPARED = 50, FEW_POINTS = 5;
let compared = []; // keys of runs, the base first
let compare_rows = 100;

const compare_name = (run) => `${short(visible(run.suite ?? "no suite"), 30)} · ${short(visible(run.run_id), 40)} · ${time_text(run.started)} · ${short(visible(run.node), 20)} ${SIGNS[run.outcome]}`;
const can_be_compared = () => runs.filter((run) => run.chosen && facts.case_counts[run.key]);

const OF_COMPARE = ["compare-form", "compare-runs", "compare-table", "curves-form"];

function begin_compare() {
  const form = $("#compare-form"), some = can_be_compared();
  for (const id of OF_COMPARE) $(`#${id}`).hidden = some.length < 2;
  if (some.length < 2) {
    $("#compare-said").replaceChildren("There are no two runs with cases in this page. Choose some: ", make("code", {}, shown(`${facts.report} --run ONE --run OTHER`)));
    return;
  }
  const like = (run, other) => (run.suite === other.suite) + (run.suite === other.suite && run.run_id === other.run_id) + (run.node === other.node);
  const base = some.slice(1).reduce((best, run) => (like(run, some[0]) > like(best, some[0]) ? run : best));
  compared = [base.key, some[0].key];
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.base.addEventListener("input", () => compare_all([form.elements.base.value, ...compared.slice(1)]));
  form.elements.add.addEventListener("input", () => compare_all([...compared, form.elements.add.value]));
  form.elements.all.addEventListener("input", draw_compare);
  $("#compare-more").addEventListener("click", () => { compare_rows += 400; draw_cases(); });
  $("#curves-form").elements.field.addEventListener("input", draw_curves);
  $("#curves-form").addEventListener("submit", (event) => event.preventDefault());
  if (!store.is_live) draw_compare();
}

function compare_all(keys) {
  const known = new Set(can_be_compared().map((run) => run.key));
  compared = [...new Set(keys)].filter((key) => known.has(key)).slice(0, MOST_COMPARED);
  compare_rows = 100;
  history.replaceState(null, "", `#compare/${compared.join("/")}`);
  draw_compare();
}

function fill_choices() {
  const form = $("#compare-form").elements, some = can_be_compared();
  const option = (run) => make("option", { value: run.key }, compare_name(run));
  const in_order = [...some].sort((a, b) => compare_values(a.suite, b.suite) || compare_values(a.run_id, b.run_id) || b.started - a.started);
  form.base.replaceChildren(...in_order.map(option));
  form.base.value = compared[0];
  const suite = by_key.get(compared[0]).suite, others = in_order.filter((run) => !compared.includes(run.key));
  const group = (name, list) => { const box = document.createElement("optgroup"); box.label = name; box.append(...list.map(option)); return list.length ? box : null; };
  form.add.replaceChildren(...[make("option", { value: "" }, compared.length < MOST_COMPARED ? "add a run" : `at most ${MOST_COMPARED}`), group("The same suite", others.filter((run) => run.suite === suite)), group("Other suites", others.filter((run) => run.suite !== suite))].filter(Boolean));
  form.add.disabled = compared.length >= MOST_COMPARED;
}

// ------------------------------------------------------------------ the numbers, as the named query `compare` has them

// A case counts as 1 or 0 where both runs are judged, else by its score; null where it does not count.
function value_in(one, is_judged) {
  if (!is_judged) return typeof one.score === "number" ? one.score : null;
  if (one.outcome === "skipped" || !one.attempts) return null;
  return one.passed ? 1 : one.passed !== null || one.outcome !== "completed" ? 0 : null;
}

// Quantile of Student's t for a 95 % interval of a mean of n numbers (Abramowitz and Stegun, 26.7.5).
function t_quantile(n) {
  const z = 1.959964, df = n - 1;
  const terms = [(z ** 3 + z) / 4, (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96, (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384, (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160];
  return terms.reduce((sum, term, index) => sum + term / df ** (index + 1), z);
}

function beside(run, base) {
  const is_judged = run.judged > 0 && base.judged > 0, before = new Map((cases[base.key] || []).map((one) => [one.case_id, one]));
  const changes = [];
  for (const one of cases[run.key] || []) {
    const other = before.get(one.case_id), now = value_in(one, is_judged), then = other ? value_in(other, is_judged) : null;
    if (now !== null && then !== null) changes.push(now - then);
  }
  const n = changes.length, change = n ? changes.reduce((sum, value) => sum + value, 0) / n : null;
  let low = null, high = null;
  if (n > 2) {
    const half = t_quantile(n) * Math.sqrt(changes.reduce((sum, value) => sum + (value - change) ** 2, 0) / (n - 1) / n), most = is_judged ? 1 : Infinity;
    [low, high] = [Math.max(-most, change - half), Math.min(most, change + half)];
  }
  const number = (test) => changes.filter(test).length;
  return { is_judged, n, change, low, high, better: number((value) => value > 0), worse: number((value) => value < 0), same: number((value) => value === 0) };
}

function signed(value, is_judged) {
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±", size = Math.abs(value);
  if (is_judged) return `${sign}${(100 * size).toFixed(1)} points`;
  return `${sign}${size === 0 || (size >= 0.0005 && size < 10) ? size.toFixed(3) : score(size)}`;
}

// ------------------------------------------------------------------ what is shown

async function draw_compare() {
  const keys = compared.join();
  await Promise.all(compared.map(store.need));
  if (keys !== compared.join()) return;
  fill_choices();
  const [base, ...others] = compared.map((key) => by_key.get(key));
  const row = (run, found) => {
    const clear = found && found.low !== null && (found.low > 0 || found.high < 0), way = found && found.change > 0 ? "up" : "down";
    const remove = found ? make("button", { type: "button", "aria-label": `Remove ${visible(run.run_id)}` }, "Remove") : "";
    if (found) remove.addEventListener("click", () => compare_all(compared.filter((key) => key !== run.key)));
    return make("tr", {}, make("th", { scope: "row" }, make("a", { href: `#run/${run.key}` }, shown(run.run_id, 100)), make("span", { class: "muted" }, found ? "" : " (base)")), make("td", {}, time_text(run.started)), make("td", {}, shown(run.node)), result_cell(run),
      make("td", { class: `n change${clear ? ` clear${found.is_judged ? ` ${way}` : ""}` : ""}` }, !found || found.change === null ? "–" : signed(found.change, found.is_judged)),
      make("td", {}, found && found.low !== null ? `${signed(found.low, found.is_judged).replace(/ points$/, "")} to ${signed(found.high, found.is_judged)}` : "–"),
      ...["better", "worse", "same"].map((name) => make("td", { class: "n" }, found ? count(found[name]) : "–")), make("td", {}, remove));
  };
  $("#compare-runs tbody").replaceChildren(row(base, null), ...others.map((run) => row(run, beside(run, base))));
  $("#compare-query").replaceChildren(make("code", {}, shown(`${facts.query} --named compare ${compared.map((key) => `--run ${quoted(name_of(by_key.get(key)))}`).join(" ")}`)));
  draw_cases();
  draw_differences();
}

function draw_cases() {
  const table = $("#compare-table"), chosen = compared.map((key) => by_key.get(key)), show_all = $("#compare-form").elements.all.checked;
  const of_run = chosen.map((run) => new Map((cases[run.key] || []).map((one) => [one.case_id, one])));
  const found = [];
  let same = 0;
  for (const id of new Set(of_run.flatMap((some) => [...some.keys()]))) {
    const ones = of_run.map((some) => some.get(id)), there = ones.filter(Boolean), what = [];
    if (there.length < ones.length) what.push("not in all");
    if (new Set(there.map(case_said)).size > 1) what.push("outcome");
    if (new Set(there.map((one) => one.score)).size > 1) what.push("score");
    if (!what.length) same += 1;
    if (what.length || show_all) found.push([what.includes("outcome") ? 0 : what.includes("score") ? 1 : what.length ? 2 : 3, id, ones, what]);
  }
  found.sort((a, b) => a[0] - b[0]);
  const cell = (one, index) => (one ? make("td", { class: `o-${case_outcome(one)}` }, make("a", { href: case_link(chosen[index].key, one.case_id) }, `${SIGNS[case_outcome(one)]} `, shown(case_said(one), 40)), one.score === null ? "" : make("span", { class: "muted" }, " ", shown(exact_score(one.score), 30))) : make("td", {}, "–"));
  table.tHead.replaceChildren(make("tr", {}, make("th", {}, "Case"), make("th", {}, "Differs in"), ...chosen.map((run, index) => make("th", {}, index ? "" : "Base: ", shown(run.run_id, 40)))));
  table.tBodies[0].replaceChildren(...found.slice(0, compare_rows).map(([, id, ones, what]) => make("tr", {}, make("th", { scope: "row" }, shown(id, 200)), make("td", {}, what.join(", ") || "nothing"), ...ones.map(cell))));
  table.hidden = !found.length;
  const more = $("#compare-more");
  more.hidden = found.length <= compare_rows;
  more.textContent = `Show more (${count(found.length - compare_rows)} left)`;
  const differing = found.filter((one) => one[3].length).length, cut = chosen.filter((run) => (cases[run.key] || []).length < facts.case_counts[run.key]).length;
  const suites = new Set(chosen.map((run) => run.suite)).size;
  $("#compare-said").textContent = `${counted(differing, "case")} ${differing === 1 ? "differs" : "differ"}, ${count(same)} ${same === 1 ? "is" : "are"} the same.${suites > 1 ? " These runs are of different suites." : ""}${cut ? " Not all cases of these runs are in this page." : ""}`;
}

// Fields of the runs' processes and first events that are not the same in all of them.
async function draw_differences() {
  const keys = [...compared], chosen = keys.map((key) => by_key.get(key)), told = new Map();
  const put = (name, index, value) => {
    if (!told.has(name)) told.set(name, keys.map(() => undefined));
    told.get(name)[index] = value;
  };
  for (const [index, run] of chosen.entries()) {
    const process = (facts.processes[run.key] || [])[0], list = list_of(run.key, run);
    if (process) for (const name of ["program", "python", "platform", "host", "user", "cwd", "git_commit", "git_dirty", "packages_sha256", "cpu", "cpus", "memory_bytes"]) put(name, index, process[name]);
    await list.open();
    const started = list.events.find((one) => field(one.event, "stage") === "run_started");
    if (started) for (const [name, value] of Object.entries(started.event)) if (!SEEN_ABOVE.has(name) || name === "model") put(name, index, value_text(value));
  }
  if (keys.join() !== compared.join()) return; // others have been chosen meanwhile
  const rows = [...told].filter(([, values]) => new Set(values.map((value) => JSON.stringify(value ?? null))).size > 1);
  const box = $("#compare-differences");
  box.replaceChildren(make("h2", {}, "Configuration and environment"));
  if (!rows.length) box.append(make("p", { class: "muted" }, told.size ? "No difference is known." : "Nothing is known about these runs."));
  else box.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "Field"), ...chosen.map((run) => make("th", {}, shown(run.run_id, 40))))), make("tbody", {}, ...rows.map(([name, values]) => make("tr", {}, make("th", { scope: "row" }, shown(name, 80)), ...values.map((value) => make("td", { class: "text" }, value === undefined || value === null ? "–" : shown(value, 300)))))))));
  draw_curves();
}

// ------------------------------------------------------------------ numbers over time

const NO_CURVE = new Set(["seq", "score", "duration_s", "passed", "cases_expected", "cases_completed", "cases_judged", "cases_passed", "pass_at", "case_id", "lineno", "pid"]);
const STEPS = ["step", "global_step", "iteration", "epoch"];

function curves_of(run) {
  const found = new Map(), list = list_of(run.key, run);
  for (const { event } of list ? list.events : []) {
    if (field(event, "stage") === "case_ended" || field(event, "stage") === "run_ended") continue;
    const at = Date.parse(field(event, "ts_utc")), step = STEPS.map((name) => field(event, name)).find((value) => typeof value === "number");
    for (const [name, value] of Object.entries(event)) {
      if (typeof value !== "number" || NO_CURVE.has(name) || STEPS.includes(name)) continue;
      if (!found.has(name)) found.set(name, []);
      found.get(name).push([step ?? (at - run.started) / 1000, value, step !== undefined]);
    }
  }
  return new Map([...found].filter(([, points]) => points.length >= FEW_POINTS));
}

function draw_curves() {
  const form = $("#curves-form"), select = form.elements.field, box = $("#curves"), chosen = compared.map((key) => by_key.get(key));
  const curves = chosen.map(curves_of), names = [...new Set(curves.flatMap((some) => [...some.keys()]))].sort().slice(0, 200), before = select.value;
  form.hidden = box.hidden = !names.length;
  $("#curves-said").textContent = names.length ? "" : `These runs logged no number, such as a loss, ${FEW_POINTS} times or more.`;
  if (!names.length) return;
  select.replaceChildren(...names.map((name) => make("option", { value: name }, visible(name).slice(0, 80))));
  if (names.includes(before)) select.value = before;
  if (!box.offsetWidth) return;
  const some = curves.map((one) => one.get(select.value) || []), by_step = some.every((points) => points.every((point) => point[2]));
  const dashes = ["solid", "dashed", "dotted"], colours = ["accent", "failed", "passed", "incomplete", "timeout", "completed"];
  chart_in(box, {
    grid: { left: 70, right: 20, top: 34, bottom: 44 },
    legend: { type: "scroll", top: 4, textStyle: { color: colour("muted") } },
    tooltip: { trigger: "axis", ...tip_style(), formatter: (points) => plain([`${by_step ? "step" : "second"} ${points[0].value[0]}`, ...points.map((point) => `${point.seriesName}: ${point.value[1]}`)].join("\n")) },
    xAxis: { type: "value", name: by_step ? "step" : "seconds", nameLocation: "middle", nameGap: 26, ...axis_style(), splitLine: { show: false }, min: "dataMin", max: "dataMax" },
    yAxis: { type: "value", scale: true, ...axis_style() },
    series: chosen.map((run, index) => ({ type: "line", name: `${index + 1}: ${short(visible(run.run_id), 40)}`, data: some[index].map((point) => point.slice(0, 2)), showSymbol: some[index].length < 50, lineStyle: { width: 1.5, type: dashes[Math.floor(index / colours.length) % dashes.length] }, itemStyle: { color: colour(colours[index % colours.length]) } })),
  });
}
