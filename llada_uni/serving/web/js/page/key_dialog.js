// Asking for the API key. The key goes to server/client.js, which keeps it in sessionStorage.

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key-input");

/** Resolves to the key a person gives, or to null when they do not want to. reason: the server's sentence. */
export function askForKey(reason) {
  document.getElementById("key-reason").textContent = reason;
  input.value = "";
  dialog.returnValue = "no";
  dialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes" ? input.value.trim() || null : null), { once: true });
  });
}
