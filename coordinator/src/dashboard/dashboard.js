// Keeps the page as new as its server: morphs it into what the server sends, and says so when nothing comes any more.
"use strict";
(() => {
  const LATE = 4000;
  const page = document.getElementById("page");
  const offline = document.getElementById("offline");
  const offlineAge = document.getElementById("offline-age");
  let heard = performance.now();
  let source = null;

  // Changes `from` into `to` and touches nothing that is the same, so focus, selection and scrolling stay.
  const morph = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || (from.id || "") !== (to.id || "")) {
      from.replaceWith(to);
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name)) from.removeAttribute(name);
    }
    for (const { name, value } of [...to.attributes]) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    children(from, to);
  };

  const children = (from, to) => {
    const wanted = [...to.childNodes];
    wanted.forEach((child, place) => {
      let here = from.childNodes[place];
      if (child.id && here && here.id !== child.id) {
        // Something came in between: look for the same thing further down.
        const same = [...from.children].find((other) => other.id === child.id);
        if (same) {
          from.insertBefore(same, here);
          here = same;
        }
      }
      if (here) morph(here, child);
      else from.append(child);
    });
    while (from.childNodes.length > wanted.length) from.lastChild.remove();
  };

  const seconds = (ms) => {
    const all = Math.round(ms / 1000);
    return all < 60 ? `${all} s` : `${Math.floor(all / 60)} min ${all % 60} s`;
  };

  const show = (event) => {
    const fresh = JSON.parse(event.data);
    if (fresh.build !== document.body.dataset.build) {
      location.reload();
      return;
    }
    heard = performance.now();
    offline.hidden = true;
    document.body.classList.remove("stale");
    document.title = fresh.title;
    const next = document.createElement("div");
    next.innerHTML = fresh.html;
    children(page, next);
  };

  const connect = () => {
    if (source) source.close();
    source = new EventSource("/events?page=" + encodeURIComponent(location.pathname + location.search));
    source.addEventListener("page", show);
  };

  const watch = () => {
    const silent = performance.now() - heard;
    if (silent > LATE) {
      offline.hidden = false;
      document.body.classList.add("stale");
      offlineAge.textContent = seconds(silent);
      // The browser gives up after an error answer, and never notices a dead path: begin anew.
      if (source.readyState === EventSource.CLOSED || Math.round(silent / 1000) % 10 === 0) connect();
    }
  };

  connect();
  setInterval(watch, 1000);
  addEventListener("pageshow", (event) => {
    if (event.persisted) connect();
  });
  addEventListener("pagehide", () => source.close());
})();
