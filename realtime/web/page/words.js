/** What the page says: states and what went wrong, each with what a person can do. */

/** What `data-state` of the body may be, and the word for it. */
export const STATES = {
  idle: "Ready",
  starting: "Starting",
  live: "Live",
  watching: "Watching",
  full: "Server full",
  failed: "Not running",
  reconnecting: "Reconnecting",
  ended: "Ended",
};

/** @typedef {{title: string, text: string, detail?: string}} Problem */

const CAMERA_PROBLEMS = {
  insecure: {
    title: "This page may not use a camera",
    text:
      "Browsers give the camera to secure pages only. Start the server with --tls and open the " +
      "https:// address it prints, or open http://localhost on the server's own machine.",
  },
  denied: {
    title: "The camera is blocked",
    text:
      "Allow the camera for this page: press the camera or lock symbol beside the address, " +
      "or look in the browser's settings. Then try again.",
  },
  missing: {
    title: "No camera was found",
    text: "Plug one in, or switch on the one that is there, and try again.",
  },
  busy: {
    title: "The camera does not start",
    text: "Another program may be using it. Close that one, and try again.",
  },
  other: { title: "The camera does not start", text: "The browser says why:" },
};

/** @param {import("./camera.js").CameraError} error @returns {Problem} */
export function cameraProblem(error) {
  const problem = CAMERA_PROBLEMS[error.kind] ?? CAMERA_PROBLEMS.other;
  return error.kind === "other" ? { ...problem, detail: error.message } : problem;
}

export const CAMERA_LOST = {
  title: "The camera has gone",
  text: "It was unplugged, or something else took it.",
};

/** @param {string} error of the server @param {"start"|"watch"} what @returns {Problem} */
export function startProblem(error, what) {
  if (what === "watch") {
    return {
      title: "There is nothing to watch here",
      text: "Ask for a new link, or use your own camera.",
      detail: error,
    };
  }
  return {
    title: "The server could not start this",
    text: "Choose another filter or size and try again. The server says:",
    detail: error,
  };
}

/** @param {{running: number, most: number}} message @returns {Problem} */
export function fullProblem({ running, most }) {
  const places = most === 1 ? "The only place is" : `All ${most} places are`;
  return {
    title: "The server is full",
    text:
      `${places} taken: ${running} ${running === 1 ? "camera is" : "cameras are"} being ` +
      "translated now. Try again when somebody has stopped; whoever runs the server can allow " +
      "more.",
  };
}

/** @param {string} reason @param {"camera"|"watch"} kind of what ran @returns {Problem} */
export function endedProblem(reason, kind) {
  const text =
    kind === "watch" ? "Nothing is shown there any more." : "You can start again at any time.";
  return { title: "This session has ended", text, detail: `The server says: ${reason}` };
}

export const STATE_UNKNOWN = {
  title: "The server does not answer",
  text: "Look whether it still runs, and whether you are in its network.",
};

export const TOKEN_MISSING = {
  title: "This server asks for its token",
  text: "Open the whole address that it printed when it started: it ends in ?token= and a code.",
};

/** @param {number} seconds @returns {Problem} */
export function goneProblem(seconds) {
  const unit = seconds === 1 ? "second" : "seconds";
  return {
    title: "The server has gone",
    text: `What ran is started again as soon as it is back. Trying again in ${seconds} ${unit}.`,
  };
}

/** @param {number|null|undefined} value @param {number} [digits] @returns {string} */
export function figure(value, digits = 0) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}
