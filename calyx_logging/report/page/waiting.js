"use strict";

// Shown until the first page has been made.
const events = new EventSource("live");
events.addEventListener("step", (event) => { document.getElementById("step").textContent = `${JSON.parse(event.data)} …`; });
events.addEventListener("changed", () => location.reload());
events.addEventListener("trouble", (event) => {
  const box = document.getElementById("trouble");
  box.textContent = JSON.parse(event.data);
  box.hidden = box.textContent === "";
});
