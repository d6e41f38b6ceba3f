// Hover, sort and brush. Without this script the page says the same: charts and tables are in the HTML.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // The same trial in every chart and table.
  const marks = new Map();
  for (const mark of all("[data-trial]")) {
    const known = marks.get(mark.dataset.trial);
    if (known) known.push(mark); else marks.set(mark.dataset.trial, [mark]);
  }
  let hot = null;
  const heat = (trial) => {
    if (trial === hot) return;
    for (const mark of marks.get(hot) || []) mark.classList.remove("hot");
    for (const mark of marks.get(trial) || []) mark.classList.add("hot");
    hot = trial;
  };
  const tips = JSON.parse(document.getElementById("tips").textContent);
  const tip = document.getElementById("tip");
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("svg [data-tip], svg [data-trial]");
    const told = mark && (mark.dataset.tip ?? tips[mark.dataset.trial]);
    tip.hidden = !told;
    if (told) {
      tip.textContent = told;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 4))}px`;
      const below = event.clientY + 18;
      tip.style.top = `${below + box.height < innerHeight ? below : event.clientY - box.height - 10}px`;
    }
    heat(event.target.closest?.("[data-trial]")?.dataset.trial ?? null);
  });
  document.documentElement.addEventListener("pointerleave", () => { tip.hidden = true; heat(null); });

  // Tables that can be sorted by any column; the first order comes back with the rank.
  for (const head of all("th[data-sort]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.children[head.cellIndex];
        const text = (cell.dataset.value ?? cell.textContent).trim();
        return { text, number: text === "" ? NaN : Number(text) };
      };
      const rows = [...body.rows].map((row) => [key(row), row]);
      rows.sort(([a], [b]) => {
        const missing = Number.isNaN(a.number) - Number.isNaN(b.number);  // words and dashes stay last
        if (missing) return missing;
        const order = Number.isNaN(a.number) ? a.text.localeCompare(b.text) : a.number - b.number;
        return down ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  }

  // Two handles on each axis of the parallel coordinates: what lies outside of them is dimmed everywhere.
  const kept = document.getElementById("kept");
  if (!kept) return;
  kept.parentNode.hidden = false;
  const ranges = [];  // by axis: least and most, as shares of the axis
  const svgName = "http://www.w3.org/2000/svg";
  const lines = new Map(all(".parallel path[data-at]").map((path) => [path.dataset.trial,
    path.dataset.at.split(",").map((share) => (share === "" ? null : Number(share)))]));
  const redraw = [];
  const apply = () => {
    let count = 0;
    for (const [trial, places] of lines) {
      const inside = places.every((share, axis) => {
        const [least, most] = ranges[axis];
        if (least === 0 && most === 1) return true;
        return share !== null && share >= least - 1e-4 && share <= most + 1e-4;
      });
      count += inside;
      for (const mark of marks.get(trial)) mark.classList.toggle("off", !inside);
    }
    kept.textContent = count === lines.size ? `All ${count} trials are kept.` : `${count} of ${lines.size} trials are kept.`;
    for (const draw of redraw) draw();
  };
  const words = (axis, share) => {
    const { low, high, scale, options } = axis.dataset;
    if (options) {
      const list = options.split("|");
      return list[Math.max(0, Math.min(list.length - 1, Math.round(share * list.length - 0.5)))];
    }
    const [from, to] = [Number(low), Number(high)];
    const value = scale === "log" ? from * (to / from) ** share : from + (to - from) * share;
    return value.toPrecision(3);
  };
  for (const axis of all(".an-axis")) {
    const number = Number(axis.dataset.axis);
    ranges[number] ??= [0, 1];
    const [x1, y1] = axis.dataset.from.split(",").map(Number);
    const [x2, y2] = axis.dataset.to.split(",").map(Number);
    const band = document.createElementNS(svgName, "line");
    band.setAttribute("class", "kept");
    axis.append(band);
    const handles = [0, 1].map((end) => {
      const handle = document.createElementNS(svgName, "rect");
      const size = { class: "handle", width: 18, height: 12, rx: 3, tabindex: 0, role: "slider",
        "aria-label": `${axis.dataset.name}, ${end ? "most" : "least"}`, "aria-valuemin": 0, "aria-valuemax": 100,
        "aria-orientation": x1 === x2 ? "vertical" : "horizontal" };
      for (const [name, value] of Object.entries(size)) handle.setAttribute(name, value);
      const move = (share) => {
        const other = ranges[number][1 - end];
        ranges[number][end] = end ? Math.max(other, Math.min(1, share)) : Math.min(other, Math.max(0, share));
        apply();
      };
      handle.addEventListener("keydown", (event) => {
        const step = { ArrowUp: 0.02, ArrowRight: 0.02, ArrowDown: -0.02, ArrowLeft: -0.02, PageUp: 0.1, PageDown: -0.1 }[event.key];
        if (step) move(ranges[number][end] + step);
        else if (event.key === "Home") move(end ? ranges[number][0] : 0);
        else if (event.key === "End") move(end ? 1 : ranges[number][1]);
        else return;
        event.preventDefault();
      });
      handle.addEventListener("pointerdown", (event) => { handle.setPointerCapture(event.pointerId); event.preventDefault(); handle.focus(); });
      handle.addEventListener("pointermove", (event) => {
        if (!handle.hasPointerCapture(event.pointerId)) return;
        const svg = axis.ownerSVGElement;
        const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
        move(x1 === x2 ? (at.y - y1) / (y2 - y1) : (at.x - x1) / (x2 - x1));
      });
      axis.append(handle);
      return handle;
    });
    redraw.push(() => {
      const ends = ranges[number].map((share) => [x1 + (x2 - x1) * share, y1 + (y2 - y1) * share]);
      const part = ranges[number][0] > 0 || ranges[number][1] < 1;
      band.setAttribute("x1", ends[0][0]); band.setAttribute("y1", ends[0][1]);
      band.setAttribute("x2", ends[1][0]); band.setAttribute("y2", ends[1][1]);
      band.style.display = part ? "" : "none";
      handles.forEach((handle, end) => {
        const [x, y] = ends[end];
        const out = end ? 1 : -1;  // beside the axis' ends, so that two at one place can both be reached
        const upright = x1 === x2;
        handle.setAttribute("x", upright ? x - 9 : x - 9 + out * 9);
        handle.setAttribute("y", upright ? y - 6 - out * 6 : y - 6);
        handle.setAttribute("aria-valuenow", Math.round(100 * ranges[number][end]));
        const unit = axis.dataset.unit ? ` ${axis.dataset.unit}` : "";
        handle.setAttribute("aria-valuetext", words(axis, ranges[number][end]) + unit);
      });
    });
  }
  document.getElementById("reset").addEventListener("click", () => {
    for (const range of ranges) [range[0], range[1]] = [0, 1];
    apply();
  });
  apply();
})();
