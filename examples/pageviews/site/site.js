"use strict";
const $ = id => document.getElementById(id);
const page = document.body.dataset.page, me = document.body.dataset.visitor;
const element = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text !== undefined) e.textContent = text; return e };

// What happens on the page is sent with sendBeacon, which outlives it.
const send = (kind, target) => navigator.sendBeacon("/activity", JSON.stringify({kind, page, target}));
let here = !document.prerendering;
if (here) send("view");
document.addEventListener("prerenderingchange", () => { here = true; send("view") });
document.addEventListener("click", e => {
  const clicked = e.target.closest("[data-click]");
  if (!clicked) return;
  send("click", clicked.dataset.click);
  if (clicked.tagName === "BUTTON") answer(clicked.dataset.click);
});
document.addEventListener("visibilitychange", () => { if (here && document.visibilityState === "hidden") send("leave") });
addEventListener("pageshow", e => { if (e.persisted) send("view") });

// The wheel.
const ns = "http://www.w3.org/2000/svg", wheel = $("wheel");
for (const r of [46, 36, 5]) { const c = document.createElementNS(ns, "circle"); c.setAttribute("r", r); wheel.append(c) }
for (let i = 0; i < 12; i++) {
  const p = document.createElementNS(ns, "path");
  p.setAttribute("d", i % 2 ? "M36 0 L47 6" : "M5 0 L36 0 L47 6"); p.setAttribute("transform", `rotate(${30*i})`); wheel.append(p);
}
function answer(what) {
  if (what === "Stop the wheel") wheel.classList.toggle("still");
  if (what === "Open the sluice" || what === "Grease the axle") wheel.classList.add("fast");
  $("said").textContent = `“${what}” is a record now.`;
}

// The results.
let last = null, clock = 0; // clock: the server's time less ours
const name = path => document.querySelector(`nav a[href="${path}"]`)?.textContent || path;
const length = ms => { const s = Math.max(0, Math.round(ms/1000)); return s < 60 ? `${s} s` : `${Math.floor(s/60)} min ${s%60} s` };
const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function session(s, now) {
  const e = element("div", "session" + (s.visitor === me ? " you" : "")), who = element("div", "who");
  const idle = now && now - Date.parse(s.end) > last.gap;
  if (idle) e.classList.add("quiet");
  who.append(element("strong", "", s.name + (s.visitor === me ? " (you)" : "")), element("span", "path", `${plural(s.views, "view")}, ${plural(s.clicks, "click")}`),
    element("span", "length", length((now && !idle ? now : Date.parse(s.end)) - Date.parse(s.start))));
  const pages = (s.pages || []).map(name);
  e.append(who, element("div", "path", (pages.length > 7 ? ["…", ...pages.slice(-7)] : pages).join(" › ")));
  return e;
}

function sessions() {
  if (!last) return;
  const now = Date.now() + clock;
  $("open-title").textContent = last.open.length ? `Open sessions: ${last.open.length}` : "Open sessions";
  $("open").replaceChildren(...(last.open.length ? last.open.slice(0, 8).map(s => session(s, now)) : [element("p", "none", "Nobody is here.")]));
}

function show(v) {
  last = v; clock = Date.parse(v.now) - Date.now();
  const minutes = new Map(v.minutes.map(m => [Date.parse(m.minute), m]));
  const newest = Math.floor((Date.now() + clock)/60e3)*60e3, columns = [];
  const views = m => m ? m.pages.reduce((n, p) => n + p.views, 0) : 0;
  for (let at = newest - 14*60e3; at <= newest; at += 60e3) columns.push([at, views(minutes.get(at))]);
  const most = Math.max(4, ...columns.map(c => c[1]));
  $("minutes").replaceChildren(...columns.map(([at, n]) => {
    const e = element("div"); e.style.height = `${100*n/most}%`;
    e.title = `${new Date(at).toLocaleTimeString([], {hour:"2-digit", minute:"2-digit"})}: ${plural(n, "view")}`;
    return e;
  }));
  const top = v.minutes[0], rows = top ? top.pages.slice(0, 6) : [];
  $("top-title").textContent = top ? `Top pages at ${new Date(top.minute).toLocaleTimeString([], {hour:"2-digit", minute:"2-digit"})}` : "Top pages";
  $("top").replaceChildren(...rows.map(p => {
    const r = element("div", "row"), bar = element("i");
    bar.style.width = `${Math.max(3, 100*p.views/rows[0].views)}%`;
    const track = element("span"); track.append(bar);
    r.append(element("span", "", name(p.page)), track, element("b", "", p.views));
    return r;
  }));
  if (!rows.length) $("top").replaceChildren(element("p", "none", "Nothing has been viewed in the last hour."));
  $("closed").replaceChildren(...(v.closed.length ? v.closed.slice(0, 6).map(s => session(s)) : [element("p", "none", "None in the last hour.")]));
  $("gap").textContent = v.gap/1000;
  $("acknowledged").textContent = v.acknowledged;
  $("kcat").textContent = `kcat -b ${v.address.split(",")[0]} -t pageviews-sessions`;
  $("problem").hidden = !v.problem; $("problem").textContent = v.problem || "";
  sessions();
}
show(JSON.parse($("state").textContent));
setInterval(sessions, 1000);

const source = new EventSource("/events");
source.onopen = () => $("dot").className = "dot on";
source.onerror = () => $("dot").className = "dot off";
source.onmessage = e => show(JSON.parse(e.data));
