/** Full screen where the browser can; else the picture fills the window (iPhones). */

import { press, setText } from "./panel.js";

/** Without a touch for so long the tools go out of the picture. */
const QUIET_AFTER_MS = 3000;

/**
 * @param {(id: string) => HTMLElement} find
 * @param {(text: string) => void} say
 */
export function makeFullScreen(find, say) {
  const stage = find("stage");
  const button = find("fullscreen");
  let timer = 0;

  const isFull = () => document.fullscreenElement === stage || stage.classList.contains("filled");

  function toggle() {
    if (!document.fullscreenEnabled) {
      stage.classList.toggle("filled");
      render();
    } else if (document.fullscreenElement) {
      document.exitFullscreen();
    } else {
      stage.requestFullscreen().catch((error) => say(error.message));
    }
  }

  function render() {
    press(button, isFull());
    setText(find("fullscreen-word"), isFull() ? "Leave" : "Full screen");
    wake();
  }

  function wake() {
    stage.classList.remove("quiet");
    clearTimeout(timer);
    if (isFull()) timer = setTimeout(rest, QUIET_AFTER_MS);
  }

  function rest() {
    // Who goes through the tools with the keyboard must see them.
    const isUsed = find("toolbar").querySelector(":focus-visible, :hover");
    if (isUsed || !find("card").hidden) wake();
    else stage.classList.add("quiet");
  }

  button.addEventListener("click", toggle);
  document.addEventListener("fullscreenchange", render);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && stage.classList.contains("filled")) toggle();
  });
  for (const kind of ["pointermove", "pointerdown", "keydown", "focusin"]) {
    stage.addEventListener(kind, wake);
  }
}
