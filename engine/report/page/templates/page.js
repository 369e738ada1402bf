"use strict";
(() => {
  const tip = document.getElementById("tip");
  const show = (text, event) => {
    tip.textContent = text;
    const box = tip.getBoundingClientRect();
    const left = Math.min(event.clientX + 14, innerWidth - box.width - 6);
    const above = event.clientY - box.height - 12;
    tip.style.left = `${Math.max(left, 6)}px`;
    tip.style.top = `${above < 6 ? event.clientY + 18 : above}px`;
    tip.style.visibility = "visible";
  };
  const hide = () => { tip.style.visibility = "hidden"; };

  // Bars, points and cells say what they are.
  for (const type of ["pointermove", "pointerdown"]) {
    document.addEventListener(type, (event) => {
      const said = event.target.closest("[data-tip]");
      if (said) show(said.dataset.tip, event);
      else if (!event.target.closest("[data-curves]")) hide();
    });
  }
  document.addEventListener("scroll", hide, { passive: true, capture: true });

  // Curves: the values of all at the nearest epoch.
  for (const svg of document.querySelectorAll("[data-curves]")) {
    const { xs, labels, curves } = JSON.parse(svg.dataset.curves);
    const cursor = svg.querySelector(".cursor");
    const move = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY);
      const { x } = at.matrixTransform(svg.getScreenCTM().inverse());
      let nearest = 0;
      xs.forEach((value, i) => {
        if (Math.abs(value - x) < Math.abs(xs[nearest] - x)) nearest = i;
      });
      cursor.setAttribute("x1", xs[nearest]);
      cursor.setAttribute("x2", xs[nearest]);
      cursor.style.visibility = "visible";
      const lines = curves.map((curve) => `${curve.name} ${curve.values[nearest]}`);
      show([labels[nearest], ...lines].join("\n"), event);
    };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", () => { cursor.style.visibility = "hidden"; hide(); });
  }

  // Tables: a click on a heading sorts each group by it, a second one the other way round.
  // A number may be followed by its spread or interval; in a column of words it stands alone.
  const valueOf = (row, column, isText) => {
    const text = row.cells[column].textContent.trim();
    const plain = text.replaceAll(",", "").replace("%", "");
    const number = isText ? Number(plain) : parseFloat(plain);
    return text === "" || Number.isNaN(number) ? text : number;
  };
  const isMissing = (value) => value === "" || value === "\u2013";
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        const first = heading.classList.contains("text") ? "ascending" : "descending";
        const second = first === "ascending" ? "descending" : "ascending";
        const order = before === first ? second : first;
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", order);
        const isText = heading.classList.contains("text");
        const sign = order === "ascending" ? 1 : -1;
        for (const body of table.tBodies) {
          const rows = [...body.querySelectorAll("tr.row")]
            .map((row) => [valueOf(row, column, isText), row]);
          rows.sort(([a], [b]) => {
            if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
            return sign * compare(a, b);
          });
          body.append(...rows.map(([, row]) => row));
        }
      });
    });
  }

  // A long table: a search hides the rows that do not have the words.
  for (const input of document.querySelectorAll("input.filter")) {
    input.hidden = false;
    const figure = input.closest("figure");
    const found = figure.querySelector(".found");
    input.addEventListener("input", () => {
      const words = input.value.trim().toLocaleLowerCase();
      let count = 0;
      for (const row of figure.querySelectorAll("tr.row")) {
        const matches = row.textContent.toLocaleLowerCase().includes(words);
        row.classList.toggle("hidden", !matches);
        count += matches;
      }
      found.textContent = words === "" ? "" : `${count} found`;
    });
  }

  // Classes: groups open and close; a search shows what it finds in all of them.
  for (const button of document.querySelectorAll("tr.group button")) {
    const body = button.closest("tbody");
    const fold = (folded) => {
      body.classList.toggle("folded", folded);
      button.setAttribute("aria-expanded", String(!folded));
    };
    fold(body.dataset.folded === "true");
    button.addEventListener("click", () => fold(!body.classList.contains("folded")));
    body.fold = fold;
  }
  const search = document.getElementById("search");
  if (search) {
    search.hidden = false;
    const found = document.getElementById("found");
    const bodies = [...document.querySelectorAll("#classes tbody")];
    search.addEventListener("input", () => {
      const words = search.value.trim().toLocaleLowerCase();
      let count = 0;
      for (const body of bodies) {
        let own = 0;
        for (const row of body.querySelectorAll("tr.row")) {
          const matches = row.cells[0].textContent.toLocaleLowerCase().includes(words);
          row.classList.toggle("hidden", !matches);
          own += matches;
        }
        body.fold(words === "" ? body.dataset.folded === "true" : own === 0);
        count += own;
      }
      found.textContent = words === "" ? "" : `${count} found`;
    });
  }
})();
