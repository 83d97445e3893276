// ------------------------------------------------------------------ tables that can be sorted

const compare_values = (a, b) =>
  a === b ? 0 : a === null || a === "" ? 1 : b === null || b === "" ? -1
    : typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

// Buttons in the heads; `sort(column, descending)` does it.
function sortable(table, sort) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(column, descending, head.dataset.by);
    });
  });
}

function value_of(cell) {
  if (cell.dataset.v !== undefined) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  const time = cell.querySelector("time");
  return time ? time.getAttribute("datetime") : cell.textContent;
}

function sort_rows(table, column, descending) {
  const body = table.tBodies[0], rows = [...body.rows].map((row) => [value_of(row.cells[column]), row]);
  rows.sort((a, b) => compare_values(a[0], b[0]));
  if (descending) rows.reverse();
  body.replaceChildren(...rows.map((pair) => pair[1]));
}

// Of a table in the page only the first rows are seen, until a button shows all of them.
const FIRST_ROWS = 15;
const unfolded = new WeakSet();

function fold(table) {
  const first = Number(table.dataset.first) || FIRST_ROWS, rows = [...table.tBodies[0].rows];
  const is_folded = !unfolded.has(table) && rows.length > first + 2;
  rows.forEach((row, index) => { row.classList.toggle("folded", is_folded && index >= first); });
  const box = table.parentElement, old = box.nextElementSibling;
  if (old && old.classList.contains("unfold")) old.remove();
  if (!is_folded) return;
  const button = make("button", { type: "button", class: "unfold" }, `Show all ${count(rows.length)} rows`);
  button.addEventListener("click", () => {
    unfolded.add(table);
    fold(table);
    table.setAttribute("tabindex", "-1"); // the button is gone, and with it the focus
    table.focus({ preventScroll: true });
  });
  box.after(button);
}

// A table of rows that are made when they are shown, a hundred more at a time.
class GrowingTable {
  constructor(table, button, row, get, first = 100) {
    Object.assign(this, { table, button, row, get, first, rows: [], shown: first });
    sortable(table, (_, descending, by) => {
      this.order = { descending, by };
      this.sort();
      this.draw();
    });
    if (button) button.addEventListener("click", () => { this.shown += 400; this.draw(); });
  }
  show(rows) {
    this.rows = rows;
    this.shown = this.first;
    this.order = null;
    for (const head of this.table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    this.draw();
  }
  // Other rows in the order and the number that the reader has chosen.
  renew(rows) {
    this.rows = rows;
    this.sort();
    this.draw();
  }
  sort() {
    if (!this.order) return;
    const { descending, by } = this.order;
    this.rows = [...this.rows].sort((a, b) => compare_values(this.get(a, by), this.get(b, by)));
    if (descending) this.rows.reverse();
  }
  draw() {
    store.put_rows(this.table.tBodies[0], this.rows.slice(0, this.shown).map(this.row));
    if (this.button) {
      this.button.hidden = this.rows.length <= this.shown;
      this.button.textContent = `Show more (${count(this.rows.length - this.shown)} left)`;
    }
  }
}

const SIGNS = { passed: "✓", completed: "●", failed: "✗", timeout: "◷", incomplete: "…", skipped: "–" };
const outcome_cell = (outcome) => make("td", { class: `o-${outcome}` }, `${SIGNS[outcome] || "·"} ${outcome}`);

// A run's result: cases passed if its harness judges them, else its mean score, else how many completed.
function result_cell(run) {
  const more = run.expected > run.cases ? `, ${count(run.expected)} expected` : "";
  const scores = run.scores ? ` mean ${score(run.mean_score)}` : "";
  if (!run.judged) {
    const completed = run.cases ? `${count(run.completed)} of ${count(run.cases)} completed${more}` : more.slice(2);
    return make("td", {}, scores.trim() || (completed ? "" : "–"), make("span", { class: "muted" }, `${scores && completed ? ", " : ""}${completed}`));
  }
  const { passed, judged: cases } = run;
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["class", "bar"], ["width", 60], ["height", 8], ["viewBox", "0 0 60 8"], ["aria-hidden", "true"]]) bar.setAttribute(name, value);
  for (const [name, width] of [["rest", 60], ["part", (60 * passed) / cases]]) {
    const part = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    part.setAttribute("class", name);
    part.setAttribute("width", width);
    part.setAttribute("height", 8);
    bar.append(part);
  }
  return make("td", {}, bar, ` ${percent(passed / cases)} `, make("span", { class: "muted" }, `${count(passed)} of ${count(cases)}${scores && `,${scores}`}${more}`));
}
