"use strict";
(function () {
  var root = document.documentElement;
  root.classList.add("js");

  // Colours: as the system, light or dark. A browser may forbid the memory of a page on the disk.
  var themes = ["auto", "light", "dark"];
  function remembered() {
    try { return localStorage.getItem("adapterdock-theme") || "auto"; } catch (e) { return "auto"; }
  }
  function remember(theme) {
    try { localStorage.setItem("adapterdock-theme", theme); } catch (e) { /* not kept */ }
  }
  function applyTheme(theme) {
    if (theme === "light" || theme === "dark") root.setAttribute("data-theme", theme);
    else root.removeAttribute("data-theme");
  }
  var theme = remembered();
  applyTheme(theme);

  function themeButton() {
    var button = document.querySelector("[data-theme-button]");
    if (!button) return;
    var text = button.querySelector("[data-theme-text]");
    function say() {
      text.textContent = theme === "light" ? "Light" : theme === "dark" ? "Dark" : "Auto";
      button.setAttribute("aria-label", "Colours: " + (theme === "auto" ? "as the system" : theme));
    }
    button.addEventListener("click", function () {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      remember(theme);
      applyTheme(theme);
      say();
    });
    say();
  }

  function copyButtons() {
    document.querySelectorAll("[data-copy]").forEach(function (button) {
      var code = button.parentNode.querySelector("code");
      button.setAttribute("aria-live", "polite");
      function done() {
        button.textContent = "Copied";
        setTimeout(function () { button.textContent = "Copy"; }, 1600);
      }
      function byHand() {
        var range = document.createRange();
        range.selectNodeContents(code);
        var selection = getSelection();
        selection.removeAllRanges();
        selection.addRange(range);
        if (document.execCommand("copy")) done();
      }
      button.addEventListener("click", function () {
        if (navigator.clipboard) navigator.clipboard.writeText(code.textContent).then(done, byHand);
        else byHand();
      });
    });
  }

  function finder() {
    var form = document.querySelector("[data-finder]");
    if (!form) return;
    var list = document.querySelector("[data-rows]");
    var count = document.querySelector("[data-count]");
    var none = document.querySelector("[data-none]");
    var more = document.querySelector("[data-more]");
    var chosen = document.querySelector("[data-chosen]");
    var page = 60, most = page;
    var words = form.elements.q, sort = form.elements.sort;
    var boxes = Array.from(form.querySelectorAll("input[data-token]"));
    var counts = boxes.map(function (box) { return box.parentNode.querySelector(".n"); });
    var groups = Array.from(form.querySelectorAll("[data-facet]"));
    var at = {};
    boxes.forEach(function (box, number) { at[box.dataset.token] = number; });
    var groupOf = boxes.map(function (box) { return groups.indexOf(box.closest("[data-facet]")); });
    var rows = Array.from(list.children).map(function (element, number) {
      var tokens = (element.dataset.f || "").split(" ").filter(Boolean);
      return {
        element: element, number: number, shown: element.classList.contains("in"),
        text: element.textContent.toLowerCase(),
        tokens: tokens.map(function (token) { return at[token]; }),
        created: element.dataset.new, rank: Number(element.dataset.rank)
      };
    });
    var order = rows.slice();
    function filter() {
      var wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      var on = boxes.map(function (box) { return box.checked; });
      var picked = groups.map(function () { return false; });
      var number = 0;
      on.forEach(function (is, n) { if (is) { picked[groupOf[n]] = true; number += 1; } });
      var asked = picked.filter(Boolean).length;
      var tally = boxes.map(function () { return 0; });
      var total = 0;
      order.forEach(function (row) {
        var fits = wanted.every(function (word) { return row.text.includes(word); });
        var hit = {}, hits = 0;
        if (fits) row.tokens.forEach(function (n) {
          if (on[n] && !hit[groupOf[n]]) { hit[groupOf[n]] = true; hits += 1; }
        });
        var missing = asked - hits;
        if (fits && missing <= 1) row.tokens.forEach(function (n) {
          // the only facet that leaves this row out would let it in with this value
          if (missing === 0 || (picked[groupOf[n]] && !hit[groupOf[n]])) tally[n] += 1;
        });
        var good = fits && missing === 0;
        if (good) total += 1;
        var show = good && total <= most;
        if (show !== row.shown) { row.element.classList.toggle("in", show); row.shown = show; }
      });
      boxes.forEach(function (box, n) {
        var text = tally[n].toLocaleString("en");
        if (counts[n].textContent !== text) counts[n].textContent = text;
        box.parentNode.classList.toggle("none", tally[n] === 0 && !on[n]);
      });
      var all = Number(count.dataset.total);
      count.textContent = total === all
        ? all.toLocaleString("en") + (all === 1 ? " adapter" : " adapters")
        : total.toLocaleString("en") + " of " + all.toLocaleString("en") + " adapters";
      none.hidden = total > 0;
      more.hidden = total <= most;
      chosen.textContent = number ? "(" + number + " chosen)" : "";
    }

    function arrange() {
      var by = sort.value;
      order.sort(function (a, b) {
        if (by === "new" && a.created !== b.created) return a.created < b.created ? 1 : -1;
        if (by === "rank" && a.rank !== b.rank) return a.rank - b.rank;
        return a.number - b.number;
      });
      var pieces = document.createDocumentFragment();
      order.forEach(function (row) { pieces.appendChild(row.element); });
      list.appendChild(pieces);
    }

    // The address has what is searched, so that a link leads to the same list.
    function address() {
      var said = new URLSearchParams();
      new FormData(form).forEach(function (value, key) { if (value) said.append(key, value); });
      return said.toString();
    }
    function keep() {
      var hash = "#" + address();
      try { history.replaceState(null, "", hash); } catch (e) { location.replace(hash); }
    }
    function fromAddress() {
      var said = new URLSearchParams(location.hash.slice(1));
      words.value = said.get("q") || "";
      sort.value = said.get("sort") || "";
      if (sort.selectedIndex < 0) sort.value = "";
      boxes.forEach(function (box) {
        box.checked = said.getAll(box.name).indexOf(box.value) >= 0;
        if (box.checked) {
          var folded = box.closest("details.more");
          if (folded) folded.open = true;
        }
      });
      arrange();
      filter();
    }
    var later;
    function changed() {
      most = page;
      filter();
      clearTimeout(later);
      later = setTimeout(keep, 250);
    }
    form.addEventListener("submit", function (event) { event.preventDefault(); });
    form.querySelector("[data-clear]").addEventListener("click", function () {
      form.reset();
      arrange();
      changed();
    });
    words.addEventListener("input", changed);
    sort.addEventListener("change", function () { arrange(); changed(); });
    form.addEventListener("change", function (event) {
      if (event.target.dataset.token) changed();
    });
    more.addEventListener("click", function () {
      var last = order.filter(function (row) { return row.shown; }).pop();
      most += 200;
      filter();
      var next = last && last.element.nextElementSibling;
      while (next && !next.classList.contains("in")) next = next.nextElementSibling;
      if (next) next.querySelector("a").focus();
    });
    addEventListener("hashchange", function () {
      var hash = location.hash.slice(1);
      if (document.getElementById(hash)) keep(); // it led to a place on this page, as "Skip to the content"
      else if (hash !== address()) fromAddress();
    });
    document.addEventListener("keydown", function (event) {
      var inside = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName);
      if (event.key === "/" && !inside && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        words.focus();
      }
    });
    // On a narrow page, the filters are folded until somebody wants them.
    var wide = matchMedia("(min-width: 1060px)");
    function fold() { document.querySelector("[data-facets]").open = wide.matches; }
    wide.addEventListener("change", fold);
    fold();
    if (location.hash.length > 1) fromAddress();
  }

  function matrixSearch() {
    var input = document.querySelector("[data-matrix-search]");
    if (!input) return;
    var rows = Array.from(document.querySelectorAll("[data-matrix] tbody tr")).map(function (row) {
      return { row: row, text: row.firstElementChild.textContent.toLowerCase() };
    });
    input.addEventListener("input", function () {
      var wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach(function (one) {
        one.row.hidden = !wanted.every(function (word) { return one.text.includes(word); });
      });
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    themeButton();
    copyButtons();
    finder();
    matrixSearch();
  });
}());
