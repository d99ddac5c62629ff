// Keeps the page current and copies commands. Without it every page works, and is as old as its load.
"use strict";
const EVERY_MS = 5000;
const button = document.getElementById("live");
let live = true;

function busy() {
  const at = document.activeElement;
  return document.hidden || !getSelection().isCollapsed || (at && (at.tagName === "INPUT" || at.closest(".scroll, [data-copy]")));
}

function pathTo(node) {
  return node && node.matches("a[href]") ? `#main a[href="${CSS.escape(node.getAttribute("href"))}"]` : null;
}

async function refresh() {
  if (!live || busy()) return;
  let fresh;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error(answer.status);
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {
    document.body.classList.add("lost");
    button.textContent = "no answer";
    return;
  }
  document.body.classList.remove("lost");
  button.textContent = "live";
  swap(fresh);
}

function swap(fresh) {
  if (!live || busy()) return;
  const main = document.getElementById("main");
  const focused = pathTo(document.activeElement);
  const open = [...main.querySelectorAll("details")].map((d) => d.open);
  if (fresh.title !== document.title) {
    document.title = fresh.title;
    document.getElementById("said").textContent = fresh.title;
  }
  document.getElementById("as-of").replaceChildren(...fresh.getElementById("as-of").childNodes);
  main.replaceChildren(...fresh.getElementById("main").childNodes);
  main.querySelectorAll("details").forEach((d, k) => { d.open = Boolean(open[k]); });
  if (focused) main.querySelector(focused)?.focus({ preventScroll: true });
  offerCopy();
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
  button.textContent = live ? "live" : "paused";
  refresh();
});
offerCopy();
setInterval(refresh, EVERY_MS);
