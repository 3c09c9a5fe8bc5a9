/** What the page says of what runs: the card over the picture, figures, notes. */

import { STATES, figure } from "./words.js";

const IDLE = {
  title: "Your camera, translated live",
  text:
    "Choose a filter and start. Pictures go to this server, are translated there and come " +
    "straight back; none is kept.",
};
const TRANSPORTS = { websocket: "WebSocket", webrtc: "WebRTC" };

/** Set a text only where it differs: screen readers and layout are left alone. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** @param {HTMLElement} button one that stays pressed @param {boolean} isPressed */
export function press(button, isPressed) {
  button.setAttribute("aria-pressed", String(isPressed));
}

/**
 * @param {(id: string) => HTMLElement} find
 * @param {import("./show.js").Show} show
 * @param {(name: string) => string} titleOf a filter.
 */
export function renderState(find, show, titleOf) {
  const { state, problem, wanted } = show;
  document.body.dataset.state = state;
  document.body.dataset.mode = wanted?.kind ?? "camera";
  setText(find("state-word"), STATES[state]);
  const runs = state === "live" || state === "watching";
  const words = problem ?? (state === "starting" ? startingWords(show, titleOf) : IDLE);
  const focused = document.activeElement;
  const inCard = find("card").contains(focused);
  find("card").hidden = runs;
  setText(find("card-title"), words.title);
  setText(find("card-text"), words.text);
  setText(find("card-detail"), words.detail ?? "");
  find("card-detail").hidden = !words.detail;
  find("spinner").hidden = state !== "starting";
  find("start").hidden = state !== "idle";
  find("retry").hidden = !["full", "failed", "reconnecting", "ended"].includes(state);
  setText(find("retry"), state === "reconnecting" ? "Try now" : "Try again");
  for (const id of ["compare", "mirror", "flip", "snapshot", "record", "stop"]) {
    find(id).disabled = !runs;
  }
  find("stop").disabled = !runs && state !== "starting" && state !== "reconnecting";
  if (inCard || focused?.disabled) keepFocus(find, runs);
  const title = titleOf(show.filter);
  setText(find("tag-after"), runs ? title : "");
  const whose = wanted?.kind === "watch" ? "the watched camera" : "your camera";
  const seen = runs ? `Live picture of ${whose}, ${title}` : words.title;
  find("canvas").setAttribute("aria-label", seen);
}

/** What was pressed is gone: who uses the keyboard goes on where something can be done. */
function keepFocus(find, runs) {
  const next = find(!runs ? "card" : find("split").hidden ? "compare" : "split");
  if (!next.contains(document.activeElement)) next.focus({ preventScroll: true });
}

function startingWords({ wanted, filter, asksForCamera }, titleOf) {
  if (wanted.kind === "watch") return { title: "Joining", text: "The picture comes in a moment." };
  if (asksForCamera) {
    return { title: "Waiting for the camera", text: "Allow it if the browser asks." };
  }
  return { title: `Opening ${titleOf(filter)}`, text: "The first time takes a moment." };
}

/** @param {(id: string) => HTMLElement} find @param {import("./show.js").Show} show */
export function renderFigures(find, show) {
  const runs = show.run !== null;
  const summary = show.measures.summary();
  const watching = show.state === "watching";
  const server = show.stats;
  const serverAge_ms = runs ? (summary.serverAge.p50 ?? server?.age_ms?.p50 ?? null) : null;
  let age_ms = summary.roundTrip.p50;
  let most_ms = summary.roundTrip.p95;
  if (watching) {
    const { way_ms } = show.run;
    age_ms = way_ms === null || serverAge_ms === null ? null : serverAge_ms + way_ms;
    const serverMost_ms = summary.serverAge.p95;
    most_ms = way_ms === null || serverMost_ms === null ? null : serverMost_ms + way_ms;
  }
  if (!runs) age_ms = most_ms = null;
  setText(find("age-name"), watching ? "Age, estimated" : "Camera to screen");
  setText(find("age"), figure(age_ms));
  setText(find("age-most"), figure(most_ms));
  setText(find("server-age"), figure(serverAge_ms));
  setText(find("fps"), runs ? figure(summary.fps, summary.fps < 9.95 ? 1 : 0) : "–");
  setText(find("dropped"), runs ? droppedWords(show, summary) : "–");
  const { width, height } = find("canvas");
  setText(find("picture-size"), runs ? `${width} × ${height}` : "–");
  setText(find("path"), runs ? TRANSPORTS[show.transport] : "–");
  setText(find("device"), runs ? deviceWords(server) : "–");
  setText(find("age-meaning"), runs ? meaning(show) : "");
  const age = age_ms === null ? "" : ` · ${watching ? "≈ " : ""}${figure(age_ms)} ms`;
  setText(find("meter"), runs ? `${figure(summary.fps)} fps${age}` : "");
}

function droppedWords({ stats, wanted }, summary) {
  const there = stats?.dropped_total ?? 0;
  if (wanted?.kind === "watch") return `${there}`;
  return `page ${summary.dropped}, server ${there}`;
}

function deviceWords(server) {
  if (!server) return "–";
  const parts = [server.device, server.backend, server.precision];
  const whole = parts.filter(Boolean).map((part) => part.replaceAll(" ", "\u00a0"));
  return whole.join(" · ") || server.label;
}

function meaning({ state, stats }) {
  const watchers = stats?.watchers ?? 0;
  const others = watchers > 1 ? ` ${watchers} are looking.` : "";
  if (state === "watching") {
    return (
      "Estimated: the server's own age of the picture, and half of a small request's round trip." +
      others
    );
  }
  return (
    "Measured: from the camera's frame to its translation on this screen, the median of two " +
    "seconds." +
    others
  );
}

/**
 * @param {(id: string) => HTMLElement} find
 * @param {string[]} notes the newest last.
 */
export function renderNotes(find, notes) {
  const list = find("notes-list");
  const key = notes.join("\n");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  setText(find("notes-count"), notes.length ? String(notes.length) : "");
  list.replaceChildren(
    ...[...notes].reverse().map((note) => {
      const item = document.createElement("li");
      item.textContent = note;
      return item;
    }),
  );
}
