// ------------------------------------------------------------------ charts (Apache ECharts)

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const charts = new Map();
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif';

function chart_in(box, option) {
  const old = charts.get(box);
  if (old) old.dispose();
  const chart = window.echarts.init(box, null, { renderer: "canvas", devicePixelRatio: Math.max(2, window.devicePixelRatio || 1) });
  charts.set(box, chart);
  chart.setOption({ animation: false, textStyle: { fontFamily: FONT, color: colour("ink") }, ...option });
  return chart;
}

const axis_style = () => ({ axisLine: { lineStyle: { color: colour("line") } }, axisLabel: { color: colour("muted") }, splitLine: { lineStyle: { color: colour("line") } }, axisTick: { show: false } });
const tip_style = () => ({ renderMode: "richText", confine: true, backgroundColor: colour("card"), borderColor: colour("line"), textStyle: { color: colour("ink"), fontSize: 12, fontFamily: FONT } });
// the library takes {name|text} for a style: a joiner, which is not seen, tells it that it is none
const plain = (text) => text.replace(/\{/g, "{\u2060");
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

// Labels of a time axis: the date where it changes, and seconds where they matter.
function axis_time(span) {
  return (ms) => {
    const p = parts_of(ms);
    if (span > 300 * 86400e3) return `${p.year}-${p.month}-${p.day}`;
    if (span > 3 * 86400e3) return `${p.month}-${p.day}${p.hour === "00" && p.minute === "00" ? "" : `\n${p.hour}:${p.minute}`}`;
    if (span < 10e3) return `${p.minute}:${p.second}.${String(Math.floor(ms) % 1000).padStart(3, "0")}`;
    const clock = span < 600e3 ? `${p.hour}:${p.minute}:${p.second}` : `${p.hour}:${p.minute}`;
    return `${clock}\n${p.month}-${p.day}`;
  };
}

function draw_activity() {
  const box = $("#activity");
  if (!box || !facts.activity.length) return;
  const step = facts.unit_ms, series = [[], []];
  let last = null;
  for (const [at, events, errors] of facts.activity) {
    if (last !== null && at > last) series.forEach((points) => points.push([last, 0]));
    series[0].push([at, events]);
    series[1].push([at, errors]);
    last = at + step;
  }
  series.forEach((points) => points.push([last, 0]));
  const span = last - facts.activity[0][0], line = { type: "line", step: "end", showSymbol: false, lineStyle: { width: 1 } };
  chart_in(box, {
    grid: { left: 70, right: 20, top: 34, bottom: 44 },
    legend: { top: 4, textStyle: { color: colour("muted") } },
    tooltip: { trigger: "axis", ...tip_style(), formatter: (points) => `${time_text(points[0].value[0])}\n${points.map((point) => `${point.seriesName} ${count(point.value[1])}`).join("\n")}` },
    xAxis: { type: "time", useUTC: true, ...axis_style(), splitLine: { show: false }, axisLabel: { color: colour("muted"), lineHeight: 15, formatter: axis_time(span), hideOverlap: true } },
    yAxis: { type: "value", ...axis_style(), minInterval: 1, axisLabel: { color: colour("muted"), formatter: count } },
    series: [
      { ...line, name: "events", data: series[0], itemStyle: { color: colour("accent") }, areaStyle: { color: colour("accent"), opacity: 0.15 } },
      { ...line, name: "errors", data: series[1], itemStyle: { color: colour("failed") }, areaStyle: { color: colour("failed"), opacity: 0.45 } },
    ],
  });
}

// ------------------------------------------------------------------ runs on a time line

const ROWS = 60; // that are seen at once
const ROWS_OF_NODE = 40;

class TimeLine {
  constructor(box, runs, open) {
    this.box = box;
    this.open = open;
    this.window = null;
    this.cases = {};
    this.take(runs);
    box.addEventListener("keydown", (event) => this.key(event));
    box.addEventListener("wheel", (event) => this.wheel(event), { passive: false, capture: true });
    for (const button of $("#zoom").querySelectorAll("button")) button.addEventListener("click", () => this.move(button.dataset.do));
  }
  take(runs) {
    const chosen = this.runs && this.chosen >= 0 ? this.runs[this.chosen] : null;
    this.runs = runs.filter((run) => run.started !== null && run.ended !== null).sort((a, b) => a.started - b.started);
    this.nodes = [...new Set(this.runs.map((run) => run.node))].sort((a, b) => compare_values(b, a));
    this.chosen = this.runs.indexOf(chosen);
    this.seen = this.runs;
    this.place();
  }
  // Runs of one node that overlap lie one below the other in its lane, which has so many rows. Row 0 is the lowest.
  place() {
    const ends = new Map();
    for (const run of this.runs) {
      const lanes = ends.get(run.node) || [];
      let sub = lanes.findIndex((end) => end <= run.started);
      if (sub < 0) sub = Math.min(lanes.length, ROWS_OF_NODE - 1);
      lanes[sub] = run.ended;
      run.sub = sub;
      ends.set(run.node, lanes);
    }
    this.rows = this.nodes.flatMap((node) => ends.get(node).map((end, at, lanes) => ({ node, sub: lanes.length - 1 - at, of: lanes.length })));
    const highest = new Map(this.rows.map((row, at) => [row.node, at]));
    for (const run of this.runs) run.row = highest.get(run.node) - run.sub;
    this.from = Math.min(...this.runs.map((run) => run.started));
    this.to = Math.max(...this.runs.map((run) => run.ended), this.from + 10);
  }
  draw() {
    const rows = this.rows, height = rows.length > 30 ? 16 : rows.length > 12 ? 22 : 34, all = rows.length <= ROWS;
    this.box.style.height = `${Math.max(130, Math.min(rows.length, ROWS) * height) + 100}px`;
    const colours = Object.fromEntries(["passed", "completed", "failed", "timeout", "incomplete", "skipped"].map((name) => [name, colour(name)]));
    const edge = colour("card"), ink = colour("ink"), seen = new Set(this.seen);
    const narrow = this.box.clientWidth < 600, side = narrow ? 84 : 150;
    const [start, end] = this.window || [this.from, this.to];
    const zoom = { xAxisIndex: 0, filterMode: "weakFilter", startValue: start, endValue: end, minValueSpan: 1 };
    this.chart = chart_in(this.box, {
      grid: { left: side, right: all ? 20 : 44, top: 12, bottom: 84 },
      tooltip: { ...tip_style(), formatter: (point) => plain(this.said(this.runs[point.dataIndex])) },
      xAxis: { type: "time", useUTC: true, min: this.from, max: this.to, ...axis_style(), axisLabel: { color: colour("muted"), lineHeight: 15, hideOverlap: true, formatter: (ms) => axis_time(this.span())(ms) } },
      yAxis: {
        type: "category", data: rows.map((row, at) => String(at)), ...axis_style(), splitLine: { show: true, interval: (at) => rows[at].sub === rows[at].of - 1, lineStyle: { color: colour("line") } },
        axisLabel: { color: colour("ink"), interval: (at) => rows[at].sub === (rows[at].of - 1) >> 1, fontSize: height < 20 ? 10 : 12, formatter: (name) => short(visible(rows[name].node), narrow ? 11 : 21) },
      },
      dataZoom: [
        { type: "inside", ...zoom, zoomOnMouseWheel: false, moveOnMouseMove: true, moveOnMouseWheel: false },
        { type: "slider", ...zoom, bottom: 12, height: 22, showDataShadow: false, brushSelect: false, borderColor: colour("line"), fillerColor: "rgba(127,127,127,.18)", handleStyle: { color: colour("muted") }, moveHandleStyle: { color: colour("muted") }, textStyle: { color: colour("muted") }, labelFormatter: (ms) => (narrow ? "" : time_text(ms)) },
        ...(all ? [] : [{ type: "slider", yAxisIndex: 0, right: 6, width: 18, startValue: rows.length - ROWS, endValue: rows.length - 1, labelFormatter: "", brushSelect: false }]),
      ],
      series: [{
        type: "custom", clip: true, encode: { x: [1, 2], y: 0 }, progressive: 0,
        data: this.runs.map((run) => [run.row, run.started, run.ended]),
        renderItem: (params, api) => this.bar(params, api, colours, edge, ink, seen),
      }],
    });
    this.chart.on("click", (point) => this.open(this.runs[point.dataIndex]));
    this.chart.on("datazoom", () => this.remember());
  }
  bar(params, api, colours, edge, ink, seen) {
    const run = this.runs[params.dataIndex], is_seen = seen.has(run);
    const from = api.coord([api.value(1), run.row]), to = api.coord([api.value(2), run.row]);
    const high = Math.max(4, api.size([0, 1])[1] * 0.74), top = from[1] - high / 2;
    const area = params.coordSys, width = Math.max(3, to[0] - from[0]), cases = this.cases[run.key];
    // a short one at the end of all is not to fall over the edge
    if (to[0] <= area.x + area.width + 1) from[0] = Math.min(from[0], area.x + area.width - width);
    const is_chosen = params.dataIndex === this.chosen;
    const bar = { type: "rect", shape: { x: from[0], y: top, width, height: high }, style: { fill: colours[run.outcome], stroke: is_chosen ? ink : edge, lineWidth: is_chosen ? 2 : 0.5 } };
    if (!is_seen) bar.style.opacity = 0.12;
    if (!is_seen || !cases || width < 120) return bar;
    bar.style.opacity = 0.45;
    const scale = width / Math.max(1, run.ended - run.started), inside = [];
    for (const one of cases.in_layers) {
      if (one.started === null) continue;
      const x = from[0] + (Math.max(one.started, run.started) - run.started) * scale, wide = Math.max(1, (one.ended - one.started) * scale - 0.5);
      if (x + wide < area.x || x > area.x + area.width) continue;
      inside.push({ type: "rect", silent: true, shape: { x, y: top + high * 0.3, width: wide, height: Math.max(2, high * 0.5) }, style: { fill: colours[case_outcome(one)] } });
    }
    return { type: "group", children: [bar, ...inside] };
  }
  said(run) {
    const rate = run.judged ? `${count(run.passed)} of ${count(run.judged)} cases passed` : run.cases ? `${count(run.completed)} of ${count(run.cases)} cases completed` : "no cases";
    return [`${run.outcome}: ${short(visible(run.run_id), 60)}`, `node ${short(visible(run.node), 60)}, suite ${short(visible(run.suite ?? "none"), 60)}`, `${exact_time(run.started)} to ${exact_time(run.ended)} (${duration(run.duration)})`, `${rate}, ${count(run.errors)} errors, ${count(run.events)} events`, ...((this.cases[run.key] || []).length < (facts.case_counts[run.key] || 0) && run.chosen ? ["not all of its cases are drawn"] : [])].join("\n");
  }
  span() {
    const [start, end] = this.window || [this.from, this.to];
    return end - start;
  }
  remember() {
    const zoom = this.chart.getOption().dataZoom[0];
    this.window = [zoom.startValue, zoom.endValue];
  }
  show(start, end) {
    const wide = Math.min(Math.max(end - start, 2), this.to - this.from);
    const at = Math.min(Math.max(start, this.from), this.to - wide);
    this.window = [at, at + wide];
    this.chart.dispatchAction({ type: "dataZoom", dataZoomIndex: 0, startValue: at, endValue: at + wide });
  }
  move(what) {
    const [start, end] = this.window || [this.from, this.to], wide = end - start, middle = (start + end) / 2;
    if (what === "in") this.show(middle - wide / 4, middle + wide / 4);
    else if (what === "out") this.show(middle - wide, middle + wide);
    else if (what === "back") this.show(start - wide / 2, end - wide / 2);
    else if (what === "on") this.show(start + wide / 2, end + wide / 2);
    else this.show(this.from, this.to);
  }
  // With Ctrl it zooms about where it is; else it is the page's, of which the chart is to know nothing.
  wheel(event) {
    event.stopPropagation();
    if (!event.ctrlKey) return;
    event.preventDefault();
    const at = this.chart.convertFromPixel({ xAxisIndex: 0 }, event.offsetX), [start, end] = this.window || [this.from, this.to];
    const factor = event.deltaY < 0 ? 0.8 : 1.25;
    this.show(at - (at - start) * factor, at + (end - at) * factor);
  }
  key(event) {
    const moves = { "+": "in", "=": "in", "-": "out", ArrowLeft: "back", ArrowRight: "on", 0: "all" };
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in moves) this.move(moves[event.key]);
    else if (event.key === "ArrowDown" || event.key === "ArrowUp") this.choose(event.key === "ArrowDown" ? 1 : -1);
    else if (event.key === "Enter" && this.chosen >= 0) this.open(this.runs[this.chosen]);
    else return;
    event.preventDefault();
  }
  // Those that the filters leave out are paler, and not chosen.
  only(runs) {
    const wanted = new Set(runs);
    this.seen = this.runs.filter((run) => wanted.has(run));
    if (this.chosen >= 0 && !wanted.has(this.runs[this.chosen])) this.chosen = -1;
    if (this.box.offsetWidth) this.draw();
  }
  choose(step) {
    if (!this.seen.length) return;
    const now = this.chosen < 0 ? -1 : this.seen.indexOf(this.runs[this.chosen]);
    const at = Math.min(Math.max(now + step, 0), this.seen.length - 1), run = this.seen[at];
    this.chosen = this.runs.indexOf(run);
    const [start, end] = this.window || [this.from, this.to];
    if (run.ended < start || run.started > end) this.show(run.started - (end - start) / 2, run.started + (end - start) / 2);
    this.draw();
    $("#timeline-said").textContent = `Run ${at + 1} of ${this.seen.length}: ${this.said(run).replace(/\n/g, "; ")}`;
  }
}

const case_outcome = (one) =>
  one.outcome === null ? (one.attempts ? "failed" : "incomplete") : one.outcome === "timeout" ? "timeout" : one.outcome === "completed" ? (one.passed === null ? "completed" : one.passed ? "passed" : "failed") : one.outcome === "skipped" ? "skipped" : one.outcome === "interrupted" ? "incomplete" : "failed";
