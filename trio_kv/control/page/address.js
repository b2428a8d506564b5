// What the page's address tells: `#token=…` once, `#run=…&frame=…` for a moment. The token does not stay in it.

const KEY = "trio_kv.token";

/** Take the address apart; the token goes into this tab's memory and out of the address. */
export function readAddress() {
  const members = new URLSearchParams(location.hash.slice(1));
  const token = members.get("token");
  if (token) {
    rememberToken(token);
    members.delete("token");
    history.replaceState(null, "", `${location.pathname}${members.size ? `#${members}` : ""}`);
  }
  const frame = Number(members.get("frame"));
  const moment = members.get("run") && Number.isInteger(frame) && frame > 0 ? { run: members.get("run"), frame } : null;
  return { token: token ?? sessionStorage.getItem(KEY), moment };
}

/** Keep a token for this tab, until it is closed. Takes a whole address, too. */
export function rememberToken(text) {
  const token = text.includes("token=") ? new URLSearchParams(text.slice(text.indexOf("#") + 1)).get("token") : text.trim();
  sessionStorage.setItem(KEY, token);
  return token;
}

/** Forget the token. */
export function forgetToken() {
  sessionStorage.removeItem(KEY);
}

/** Let the address name a moment, or none. */
export function showMoment(moment) {
  const hash = moment ? `#run=${encodeURIComponent(moment.run)}&frame=${moment.frame}` : "";
  if (location.hash !== hash) history.replaceState(null, "", `${location.pathname}${hash}`);
}
