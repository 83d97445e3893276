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

// A table of rows that are made when they are shown, a hundred more at a time.
class GrowingTable {
  constructor(table, button, row, get) {
    Object.assign(this, { table, button, row, get, rows: [], shown: 100 });
    sortable(table, (_, descending, by) => {
      this.rows = [...this.rows].sort((a, b) => compare_values(get(a, by), get(b, by)));
      if (descending) this.rows.reverse();
      this.draw();
    });
    if (button) button.addEventListener("click", () => { this.shown += 400; this.draw(); });
  }
  show(rows) {
    this.rows = rows;
    this.shown = 100;
    for (const head of this.table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    this.draw();
  }
  draw() {
    this.table.tBodies[0].replaceChildren(...this.rows.slice(0, this.shown).map(this.row));
    if (this.button) {
      this.button.hidden = this.rows.length <= this.shown;
      this.button.textContent = `Show more (${count(this.rows.length - this.shown)} left)`;
    }
  }
}

const SIGNS = { passed: "✓", failed: "✗", timeout: "◷", incomplete: "…" };
const outcome_cell = (outcome) => make("td", { class: `o-${outcome}` }, `${SIGNS[outcome] || "·"} ${outcome}`);

function rate_cell(passed, cases, expected) {
  const more = expected > cases ? `, ${count(expected)} expected` : "";
  if (!cases) return make("td", {}, "–", make("span", { class: "muted" }, more));
  const bar = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of [["class", "bar"], ["width", 60], ["height", 8], ["viewBox", "0 0 60 8"], ["aria-hidden", "true"]]) bar.setAttribute(name, value);
  for (const [name, width] of [["rest", 60], ["part", (60 * passed) / cases]]) {
    const part = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    part.setAttribute("class", name);
    part.setAttribute("width", width);
    part.setAttribute("height", 8);
    bar.append(part);
  }
  return make("td", {}, bar, ` ${percent(passed / cases)} `, make("span", { class: "muted" }, `${count(passed)} of ${count(cases)}${more}`));
}
