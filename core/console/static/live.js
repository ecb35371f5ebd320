/* Says whether the page is live, and keeps the tab's title true. htmx does the polling. */
"use strict";
(function () {
  const badge = document.getElementById("live");
  const word = document.getElementById("live-word");
  const time = document.getElementById("live-time");

  function say(state, text) {
    if (badge.dataset.state === state) return;
    badge.dataset.state = state;
    word.textContent = text;
  }

  document.body.addEventListener("htmx:beforeRequest", function (event) {
    if (document.hidden) event.preventDefault();
  });
  document.body.addEventListener("htmx:afterRequest", function (event) {
    const status = event.detail.xhr ? event.detail.xhr.status : 0;
    if (event.detail.successful) {
      const now = new Date();
      time.dateTime = now.toISOString();
      time.textContent = now.toISOString().slice(11, 16) + " UTC";
      say("live", "live");
    } else if (status === 403) {
      say("lost", "access ended, run \u201cfalaj core link\u201d; as of");
    } else {
      say("lost", "no answer from the core; as of");
    }
  });
  document.body.addEventListener("htmx:afterSettle", function () {
    const sheet = document.querySelector(".sheet");
    if (sheet) document.title = sheet.dataset.title;
  });
})();
