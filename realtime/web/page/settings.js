/** What the person has chosen, kept in this browser where it lets us. */

const KEY = "pix2live";

const DEFAULTS = {
  filter: "",
  camera: "",
  facing: "user",
  /** Long side of the pictures that are sent, in pixels. */
  longSide_px: 640,
  /** Of JPEG, 30 to 95. */
  quality: 80,
  /** "auto", "websocket" or "webrtc". */
  transport: "auto",
  crossfade: false,
  /** null: mirrored where the camera faces the person. */
  mirror: null,
  compare: null,
};

/** @returns {typeof DEFAULTS} what was kept, as far as it makes sense. */
export function loadSettings() {
  const settings = { ...DEFAULTS };
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    for (const key of Object.keys(DEFAULTS)) {
      const mayBeNull = DEFAULTS[key] === null && typeof kept[key] === "boolean";
      if (mayBeNull || typeof kept[key] === typeof DEFAULTS[key]) settings[key] = kept[key];
    }
  } catch {
    // No storage here: the defaults will do.
  }
  return settings;
}

/** @param {typeof DEFAULTS} settings */
export function keepSettings(settings) {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // They last as long as the page.
  }
}
