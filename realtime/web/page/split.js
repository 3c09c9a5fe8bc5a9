/** The line between before and after: dragged anywhere on the picture, or moved by keyboard. */

const STEP = 0.02;
const LARGE_STEP = 0.1;
const KEYS = {
  ArrowLeft: -STEP,
  ArrowDown: -STEP,
  ArrowRight: STEP,
  ArrowUp: STEP,
  PageDown: -LARGE_STEP,
  PageUp: LARGE_STEP,
};

/**
 * @param {{handle: HTMLElement, stage: import("./stage.js").Stage,
 *   words: (percent: number) => string}} parts `words` tells a screen reader what is shown.
 * @returns {() => void} call it when the words may have changed.
 */
export function makeSplit({ handle, stage, words }) {
  const area = stage.frame;
  let dragging = false;

  function place(part) {
    stage.split = Math.min(1, Math.max(0, part));
    stage.redraw();
    render();
  }

  function render() {
    const percent = Math.round(stage.split * 100);
    area.style.setProperty("--split", `${stage.split * 100}%`);
    handle.setAttribute("aria-valuenow", String(percent));
    handle.setAttribute("aria-valuetext", words(percent));
  }

  function follow(event) {
    const box = stage.canvas.getBoundingClientRect();
    place((event.clientX - box.left) / box.width);
  }

  area.addEventListener("pointerdown", (event) => {
    if (!stage.compare || event.button !== 0 || event.target.closest("button, a, #card")) return;
    dragging = true;
    area.setPointerCapture(event.pointerId);
    follow(event);
  });
  area.addEventListener("pointermove", (event) => {
    if (dragging) follow(event);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    area.addEventListener(end, () => (dragging = false));
  }

  handle.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Home") place(0);
    else if (event.key === "End") place(1);
    else if (event.key in KEYS) {
      const step = KEYS[event.key];
      place(stage.split + (event.shiftKey ? Math.sign(step) * LARGE_STEP : step));
    } else return;
    event.preventDefault();
  });

  render();
  return render;
}
