/** The page: asks the server what there is, and connects what is pressed with what runs. */

import { Camera } from "./camera.js";
import { Controls } from "./controls.js";
import { makeGallery } from "./gallery.js";
import { renderFigures, renderNotes, renderState, setText } from "./panel.js";
import { keepSettings, loadSettings } from "./settings.js";
import { makeSharing } from "./sharing.js";
import { Show } from "./show.js";
import { makeSplit } from "./split.js";
import { Stage } from "./stage.js";
import { STATES, STATE_UNKNOWN, TOKEN_MISSING } from "./words.js";

const FIGURES_EVERY_MS = 500;
const NOTES_KEPT = 20;

const address = new URLSearchParams(location.search);
const debug = address.has("debug");
const find = (id) => document.getElementById(id);
const settings = loadSettings();
const camera = new Camera(find("camera"));
const stage = new Stage(find("canvas"), find("picture"));
/** What the page itself has to say, the newest last. */
const ownNotes = [];
let filters = [];
/** The session that can be watched here: of the address, or the server's own camera; or null. */
let watchable = address.get("watch");
let isLoaded = false;
let lastState = "";

const show = new Show({
  ...{ camera, stage, settings, debug },
  returned: find("returned"),
  onChange: render,
  onNote: note,
});
const controls = new Controls({ find, show, stage, camera, settings, say });
const share = makeSharing(find, say);
const renderSplit = makeSplit({ handle: find("split"), stage, words: splitWords });
let mark = () => {};

function say(text) {
  setText(find("status"), text);
}

function note(text) {
  ownNotes.push(text);
  if (ownNotes.length > NOTES_KEPT) ownNotes.shift();
  say(text);
}

function titleOf(name) {
  return filters.find((filter) => filter.name === name)?.title ?? name;
}

function splitWords(percent) {
  return `${percent} % camera, ${100 - percent} % ${titleOf(show.filter) || "filter"}`;
}

/** Show everything as it is now. */
function render() {
  controls.render();
  renderFigures(find, show);
  renderState(find, show, titleOf);
  renderSplit();
  mark(show.filter, show.pending);
  sayWhatChanged();
  renderModes();
  renderBackdrop();
  const session = show.info?.session ?? null;
  share(session, show.info?.stream ?? "");
  find("filters").setAttribute("aria-busy", String(show.pending !== ""));
  renderNotes(find, [...(show.stats?.notes ?? show.info?.notes ?? []), ...ownNotes]);
}

function sayWhatChanged() {
  const running = show.info ? show.filter : "";
  const key = [show.state, running, show.pending].join();
  if (key === lastState) return;
  const [stateBefore] = lastState.split(",");
  lastState = key;
  if (show.state !== stateBefore) {
    say(show.problem?.title ?? STATES[show.state] + (running && `: ${titleOf(running)}`));
    if (show.state === "live") controls.fillCameras();
  } else if (show.pending) {
    say(`Opening ${titleOf(show.pending)} …`);
  } else if (running) {
    say(`${STATES[show.state]}: ${titleOf(running)}`);
  }
}

function renderModes() {
  const isWatch = show.wanted?.kind === "watch";
  const isForeign = address.has("watch");
  find("modes").hidden = watchable === null;
  setText(find("mode-watch"), isForeign ? "Watched camera" : "Server’s camera");
  find("mode-watch").setAttribute("aria-pressed", String(isWatch));
  find("mode-camera").setAttribute("aria-pressed", String(show.wanted?.kind === "camera"));
  const other = find("other");
  const stands = ["idle", "full", "failed", "ended"].includes(show.state) && isLoaded;
  other.hidden = !stands || watchable === null;
  if (isWatch) setText(other, "Use my own camera");
  else setText(other, isForeign ? "Watch the other camera" : "Watch the server’s camera");
}

/** Before anything runs: the chosen filter's thumbnail, far out of focus. */
function renderBackdrop() {
  const backdrop = find("backdrop");
  const thumbnail = filters.find((filter) => filter.name === show.filter)?.thumbnail;
  backdrop.hidden = !thumbnail || show.run !== null || !stage.isEmpty;
  if (thumbnail && backdrop.getAttribute("src") !== thumbnail) backdrop.src = thumbnail;
}

/** Watch what can be watched, or use the own camera. */
function change(kind) {
  if (show.wanted?.kind === kind && show.run) return;
  stage.clear();
  if (kind === "watch") show.watch(watchable);
  else show.startCamera();
}

function chooseFilter(name) {
  settings.filter = name;
  keepSettings(settings);
  show.switchFilter(name);
}

/** Ask the server what there is. @returns {Promise<boolean>} whether it has answered. */
async function load() {
  let state;
  try {
    const answer = await fetch("/api/state", { cache: "no-store" });
    if (!answer.ok) {
      show.fail(answer.status === 401 || answer.status === 403 ? TOKEN_MISSING : STATE_UNKNOWN);
      return false;
    }
    state = await answer.json();
  } catch {
    show.fail(STATE_UNKNOWN);
    return false;
  }
  filters = state.filters;
  show.server = { maxSize: state.max_size, transports: state.transports };
  const known = (name) => filters.some((filter) => filter.name === name);
  if (!known(show.filter)) {
    show.filter = known(settings.filter) ? settings.filter : state.default_filter;
  }
  mark = makeGallery(find("gallery"), filters, chooseFilter);
  if (!address.has("watch")) watchable = state.local ? state.local.session : null;
  isLoaded = true;
  return true;
}

async function begin() {
  if (!(await load())) return;
  if (watchable !== null) show.watch(watchable);
  else show.stop();
}

find("start").addEventListener("click", () => change("camera"));
find("retry").addEventListener("click", async () => {
  if (!isLoaded) await begin();
  else if (show.state === "reconnecting" || (await load())) show.retry();
});
find("other").addEventListener("click", () => {
  change(show.wanted?.kind === "watch" ? "camera" : "watch");
});
find("mode-watch").addEventListener("click", () => change("watch"));
find("mode-camera").addEventListener("click", () => change("camera"));
navigator.mediaDevices?.addEventListener?.("devicechange", () => controls.fillCameras());
setInterval(() => {
  renderFigures(find, show);
  controls.tick();
}, FIGURES_EVERY_MS);
if (matchMedia("(max-width: 999px)").matches) find("settings").open = false;

/** For tests and whoever is curious; nothing here changes anything. */
const outside = {
  get state() {
    return show.state;
  },
  get filter() {
    return show.filter;
  },
  get session() {
    return show.info?.session ?? null;
  },
  get transport() {
    return show.transport;
  },
  get notes() {
    return [...(show.stats?.notes ?? []), ...ownNotes];
  },
  /** @param {number} [seconds] over how long, at most 30; two if not given. */
  stats: (seconds) => show.measures.summary(seconds),
  /** {number, sent, returned} with the JPEG blobs; null unless ?debug is in the address. */
  lastPair: () => show.run?.pair ?? null,
};
Object.defineProperty(window, "pix2live", { value: Object.freeze(outside) });

render();
begin();
