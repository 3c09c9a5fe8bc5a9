/** Links for those who watch. */

const LOOPBACK = /^(localhost|127\.|\[::1\])/;

/**
 * @param {(id: string) => HTMLElement} find
 * @param {(text: string) => void} say
 * @returns {(session: string|null, stream: string) => void} shows the links of a session; null:
 *   there is none now.
 */
export function makeSharing(find, say) {
  const hint = LOOPBACK.test(location.host)
    ? "These addresses work on this computer only. Start the server with --host to let others in."
    : "Whoever has the link can watch. If this server uses a token, they need that too.";
  find("share-hint").textContent = hint;
  connect(find("watch-link"), find("copy-watch"), say);
  connect(find("stream-link"), find("copy-stream"), say);

  return function show(session, stream) {
    const id = encodeURIComponent(session ?? "");
    const watch = session === null ? "" : `${location.origin}/?watch=${id}`;
    set(find("watch-link"), find("copy-watch"), watch);
    set(find("stream-link"), find("copy-stream"), session === null ? "" : location.origin + stream);
  };
}

function set(input, button, address) {
  if (input.value !== address) input.value = address;
  input.placeholder = "Starts with the picture";
  button.disabled = address === "";
}

function connect(input, button, say) {
  input.addEventListener("focus", () => input.select());
  button.addEventListener("click", async () => {
    say((await copy(input)) ? "Copied." : "Not copied: the link is selected, press Ctrl+C.");
  });
}

async function copy(input) {
  try {
    await navigator.clipboard.writeText(input.value);
    return true;
  } catch {
    // Insecure pages have no clipboard, but most browsers still copy what is selected.
    input.select();
    return document.execCommand("copy");
  }
}
