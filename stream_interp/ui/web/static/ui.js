// Keeps the page current and copies commands. Without it every page works, and is as old as its load.
"use strict";
const EVERY_MS = 5000;
const button = document.getElementById("live");
let live = true;

// What a swap would take from somebody: a selection, what is being typed, the place in a table read by keyboard.
function held() {
  const at = document.activeElement;
  return !getSelection().isCollapsed || at.tagName === "INPUT" || (at.closest(".scroll") && at.matches(":focus-visible"));
}

function say(word, mark = "") {
  button.textContent = word;
  document.body.className = mark;
}

const PLACES = "a[href], summary, .scroll, [data-copy]";

// Equal before and after a swap.
function nameOf(place) {
  return place.tagName + (place.getAttribute("href") ?? place.dataset.copy ?? place.getAttribute("aria-labelledby") ?? place.textContent);
}

async function refresh() {
  if (!live || document.hidden) return;
  if (held()) return say("held", "held");
  let fresh;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(EVERY_MS) });
    if (!answer.ok) throw new Error(answer.status);
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    if (live) say("no answer", "lost");
    return;
  }
  if (!live) return;
  if (held()) return say("held", "held");
  say("live");
  swap(fresh);
}

function swap(fresh) {
  const main = document.getElementById("main");
  const at = document.activeElement;
  const focused = main.contains(at) && at.matches(PLACES) ? nameOf(at) : "";
  const open = [...main.querySelectorAll("details")].map((d) => d.open);
  const sideways = [...main.querySelectorAll(".scroll")].map((s) => s.scrollLeft);
  if (fresh.title !== document.title) {
    document.title = fresh.title;
    document.getElementById("said").textContent = fresh.title;
  }
  document.getElementById("as-of").replaceChildren(...fresh.getElementById("as-of").childNodes);
  main.replaceChildren(...fresh.getElementById("main").childNodes);
  main.querySelectorAll("details").forEach((d, k) => { d.open = Boolean(open[k]); });
  main.querySelectorAll(".scroll").forEach((s, k) => { s.scrollLeft = sideways[k] ?? 0; });
  offerCopy();
  if (focused) [...main.querySelectorAll(PLACES)].find((p) => nameOf(p) === focused)?.focus({ preventScroll: true });
}

function offerCopy() {
  if (!navigator.clipboard) return;
  for (const copy of document.querySelectorAll("[data-copy]")) copy.hidden = false;
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (!copy) return;
  await navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent);
  document.getElementById("said").textContent = "copied";
  copy.classList.add("done");
  setTimeout(() => copy.classList.remove("done"), 1500);
});

button.hidden = false;
button.addEventListener("click", () => {
  live = !live;
  button.setAttribute("aria-pressed", String(live));
  say(live ? "live" : "paused");
  refresh();
});
offerCopy();
setInterval(refresh, EVERY_MS);
