"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
  const SHADES = ["#FFFFFF", "#C9D6E4"].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const SIDE = 4000, LEFT = 70, TOP = 30, WIDE = 380, HIGH = 304;
  const FONT = "'DejaVu Sans', Verdana, Arial, sans-serif";

  const make = (tag, attributes, parent, text) => {
    const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const words = (parent, x, y, text, more = {}) =>
    make("svg:text", { x, y, "font-size": 12, "font-family": FONT, fill: "#333", ...more }, parent, text);
  const clipped = (text, most) => (text.length <= most ? text : text.slice(0, most - 1) + "…");
  const number = (value) => (value >= 1000 || (value !== 0 && value < 0.001) ? value.toExponential(2) : String(value));

  // Every figure can be taken away as a file.
  for (const figure of document.querySelectorAll("figure")) {
    const name = figure.dataset.name;
    const button = make("button", { type: "button", "aria-label": `Download ${name} as SVG` }, figure, "Save SVG");
    button.addEventListener("click", () => {
      const picture = figure.querySelector("svg").cloneNode(true);
      const box = picture.viewBox.baseVal;
      if (!picture.hasAttribute("width")) picture.setAttribute("width", box.width);
      if (!picture.hasAttribute("height")) picture.setAttribute("height", box.height);
      const url = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(picture)], { type: "image/svg+xml" }));
      make("a", { href: url, download: `${name}.svg` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    });
  }

  const source = document.getElementById("scene");
  if (!source) return;
  const scene = JSON.parse(source.textContent);
  const kinds = scene.kinds, backends = kinds[0].paths.map((each) => each.backend);
  const X = (place) => LEFT + (place / SIDE) * WIDE, Y = (place) => TOP + HIGH - (place / SIDE) * HIGH;
  const at = (flat, i) => `${X(flat[2 * i]).toFixed(1)},${Y(flat[2 * i + 1]).toFixed(1)}`;
  const outline = (flat) => Array.from({ length: flat.length / 2 }, (_, i) => at(flat, i)).join("L");

  // The surface, which stays.
  const plane = document.getElementById("plane");
  const clip = make("svg:clipPath", { id: "within" }, make("svg:defs", {}, plane));
  make("svg:rect", { x: LEFT, y: TOP, width: WIDE, height: HIGH }, clip);
  const inside = make("svg:g", { "clip-path": "url(#within)" }, plane);
  scene.contours.forEach((contour, i) => {
    const share = i / Math.max(1, scene.contours.length - 1);
    const fill = SHADES[0].map((low, channel) => Math.round(low + share * (SHADES[1][channel] - low)));
    const curve = contour.level === null;
    const d = contour.rings.map((ring) => `M${outline(ring)}${curve ? "" : "Z"}`).join("");
    const look = curve ? { fill: "none", stroke: "#BBBBBB", "stroke-width": 2.5 } : { fill: `rgb(${fill})`, stroke: "#8A97A6", "stroke-width": 0.6 };
    make("svg:title", {}, make("svg:path", { d, "fill-rule": "evenodd", ...look }, inside), curve ? "the mean loss" : `loss ${contour.level}`);
  });
  make("svg:rect", { x: LEFT, y: TOP, width: WIDE, height: HIGH, fill: "none", stroke: "#555" }, plane);
  words(plane, LEFT, 18, clipped(scene.title, 62), { "font-weight": "bold" });
  const [across, up] = scene.ticks;
  for (const [place, text] of across) {
    make("svg:line", { x1: X(place), x2: X(place), y1: TOP + HIGH, y2: TOP + HIGH + 4, stroke: "#555" }, plane);
    words(plane, X(place), TOP + HIGH + 17, text, { "text-anchor": "middle" });
  }
  for (const [place, text] of up) {
    make("svg:line", { x1: LEFT - 4, x2: LEFT, y1: Y(place), y2: Y(place), stroke: "#555" }, plane);
    words(plane, LEFT - 6, Y(place) + 4, text, { "text-anchor": "end", "font-size": 11 });
  }
  words(plane, LEFT + WIDE / 2, TOP + HIGH + 36, clipped(scene.labels[0], 40), { "text-anchor": "middle" });
  words(plane, 0, 0, clipped(scene.labels[1], 40), { "text-anchor": "middle", transform: `translate(12 ${TOP + HIGH / 2}) rotate(-90)` });

  // Marks of backends have a shape and a size each, so that those at one point are seen one around the other.
  const shapeOf = (i) => {
    const r = 3.2 + 2.6 * i;
    const corners = [null, [45, 4], [0, 4], [-90, 3], [90, 3], [-90, 5]][i % 6];
    if (!corners) return `M${-r},0A${r},${r} 0 1 0 ${r},0A${r},${r} 0 1 0 ${-r},0Z`;
    const [turn, count] = corners, reach = count === 3 ? 1.5 * r : 1.25 * r;
    const points = Array.from({ length: count }, (_, k) => ((turn + (k * 360) / count) * Math.PI) / 180);
    return `M${points.map((angle) => `${(reach * Math.cos(angle)).toFixed(1)},${(reach * Math.sin(angle)).toFixed(1)}`).join("L")}Z`;
  };

  // The paths: one line for all backends that it cannot tell apart, whole and pale, and as far as the step in full.
  const lines = [], marks = [];
  kinds.forEach((kind, k) => {
    kind.paths.forEach((each, b) => {
      if (each.path === null) return;
      const parts = Array.from({ length: each.path.length / 2 }, (_, i) => `${i ? "L" : "M"}${at(each.path, i)}`);
      const ends = [];
      parts.reduce((length, part) => (ends.push(length + part.length), length + part.length), 0);
      const look = { d: parts.join(""), fill: "none", stroke: COLOURS[k % COLOURS.length], "stroke-linejoin": "round" };
      const same = kind.paths.map((other, o) => (o === b || (b === 0 && other.path === null) ? o : -1)).filter((o) => o >= 0);
      const pale = make("svg:path", { ...look, "stroke-width": 1, opacity: 0.3 }, inside);
      const full = make("svg:path", { ...look, "stroke-width": 1.8 }, inside);
      lines.push({ k, same, ends, whole: look.d, pale, full });
    });
  });
  kinds.forEach((kind, k) => {
    kind.paths.forEach((each, b) => {
      const look = { d: shapeOf(b), fill: b ? "none" : COLOURS[k % COLOURS.length], stroke: COLOURS[k % COLOURS.length], "stroke-width": 1.5 };
      const path = each.path || kind.paths[0].path;
      marks.push({ k, b, path, mark: make("svg:path", { ...look, class: "mark", "data-kind": kind.name, "data-backend": each.backend }, inside) });
    });
  });

  // What is where, and the switches: a row for each backend, a column for each descent.
  const table = document.getElementById("where");
  document.getElementById("where-title").textContent = `Marks to be seen, and how far each backend is from ${backends[0]} at this step, in units in the last place.`;
  const head = make("tr", {}, make("thead", {}, table)), body = make("tbody", {}, table);
  make("td", {}, head);
  const toggle = (parent, type, name, text, on, picture) => {
    const label = make("label", {}, parent);
    const input = make("input", { type, name }, label);
    input.checked = on;
    if (picture) make("svg:path", picture, make("svg:svg", { viewBox: "-18 -18 36 36", "aria-hidden": "true" }, label));
    if (type === "radio") input.setAttribute("aria-label", text);
    else make("span", {}, label, text);
    input.addEventListener("input", () => draw());
    return input;
  };
  const ofKind = kinds.map((kind, k) =>
    toggle(make("th", { scope: "col" }, head), "checkbox", "kind", kind.name, true, { d: "M-14,0H14", stroke: COLOURS[k % COLOURS.length], "stroke-width": 7 }));
  const cells = backends.map(() => []);
  const ofBackend = backends.map((name, b) => {
    const row = make("tr", {}, body);
    const input = toggle(make("th", { scope: "row" }, row), "checkbox", "backend", name, true, { d: shapeOf(b), fill: b ? "none" : "#333", stroke: "#333", "stroke-width": 2 });
    kinds.forEach(() => cells[b].push(make("td", {}, row)));
    return input;
  });
  const lossRow = make("tr", {}, body);
  make("th", { scope: "row" }, lossRow, "mean loss of all samples");
  const lossCells = kinds.map(() => make("td", {}, lossRow));
  const fanRow = make("tr", {}, body);
  make("th", { scope: "row" }, fanRow, "gradients shown");
  const ofFan = kinds.map((kind, k) => toggle(make("td", {}, fanRow), "radio", "fan", `gradients of ${kind.name}`, k === 0));

  // The fan of the samples' gradients.
  const fan = document.getElementById("fan");
  const MIDDLE = [230, 178], REACH = 132;
  const title = words(fan, 10, 18, "", { "font-weight": "bold" });
  const arrows = make("svg:g", {}, fan);
  const note = words(fan, 10, 344, ""), legend = make("svg:g", {}, fan);
  [["one sample", "#56B4E9", 1.2], ["in the batch", "#E69F00", 2.2], ["mean of the batch", "#000000", 1.6], ["the gradient", COLOURS[0], 6], ["mean of all", COLOURS[1], 2]]
    .forEach(([text, stroke, width], i) => {
      const x = [10, 105, 205, 10, 205][i], y = i < 3 ? 360 : 377;
      make("svg:line", { x1: x, x2: x + 16, y1: y - 4, y2: y - 4, stroke, "stroke-width": width }, legend);
      words(legend, x + 20, y, text, { "font-size": 11 });
    });
  const arrow = (x, y, stroke, width) => {
    const [tx, ty] = [MIDDLE[0] + (x / 250) * REACH, MIDDLE[1] - (y / 250) * REACH];
    const length = Math.hypot(tx - MIDDLE[0], ty - MIDDLE[1]);
    if (length < 0.5) return make("svg:circle", { cx: tx, cy: ty, r: 1 + width / 2, fill: stroke }, arrows);
    const size = Math.min(4 + 1.5 * width, length), [ux, uy] = [(tx - MIDDLE[0]) / length, (ty - MIDDLE[1]) / length];
    const [bx, by] = [tx - ux * size, ty - uy * size], half = size / 2.5;
    make("svg:path", { d: `M${MIDDLE}L${bx.toFixed(1)},${by.toFixed(1)}`, stroke, "stroke-width": width }, arrows);
    return make("svg:path", { d: `M${tx.toFixed(1)},${ty.toFixed(1)}L${(bx - uy * half).toFixed(1)},${(by + ux * half).toFixed(1)}L${(bx + uy * half).toFixed(1)},${(by - ux * half).toFixed(1)}Z`, fill: stroke }, arrows);
  };
  const stationOf = (kind, stop) => {
    if (!kind.fan) return null;
    let i = stop;
    while (i > 0 && kind.fan[i] === null) i -= 1;
    return kind.fan[i];
  };
  const drawFan = (kind, station) => {
    title.textContent = `Gradients where the ${kind.name} descent is`;
    arrows.replaceChildren();
    note.textContent = "none to show here: not finite, or too many";
    if (!station) return;
    make("svg:circle", { cx: MIDDLE[0], cy: MIDDLE[1], r: REACH, fill: "none", stroke: "#DDD" }, arrows);
    words(arrows, MIDDLE[0] + REACH + 6, MIDDLE[1] - 4, number(station.scale), { fill: "#777", "font-size": 11 });
    for (let i = 0; i < station.rows.length; i += 2) {
      if (!station.used.includes(i / 2)) arrow(station.rows[i], station.rows[i + 1], "#56B4E9", 0.9);
    }
    for (const i of station.used) arrow(station.rows[2 * i], station.rows[2 * i + 1], "#E69F00", 2);
    arrow(...station.gradient, COLOURS[0], 6);
    arrow(...station.mean, COLOURS[1], 2);
    if (station.batch) arrow(...station.batch, "#000000", 1.6);
    note.textContent = `mean of all samples − the gradient: ${number(station.off)} at most`;
  };

  // One state: the stop and the switches. All that is seen follows from it.
  const slider = document.getElementById("step"), value = document.getElementById("step-value");
  slider.max = scene.stops.length - 1;
  const draw = () => {
    const stop = Number(slider.value), step = scene.stops[stop];
    value.textContent = `${step} of ${scene.stops[scene.stops.length - 1]}`;
    slider.setAttribute("aria-valuetext", `step ${step}`);
    for (const { k, same, ends, whole, pale, full } of lines) {
      const seen = ofKind[k].checked && same.some((b) => ofBackend[b].checked);
      pale.style.display = full.style.display = seen ? "" : "none";
      if (seen) full.setAttribute("d", whole.slice(0, ends[Math.min(kinds[k].at[stop], ends.length - 1)]));
    }
    for (const { k, b, path, mark } of marks) {
      mark.style.display = ofKind[k].checked && ofBackend[b].checked ? "" : "none";
      mark.setAttribute("transform", `translate(${at(path, Math.min(kinds[k].at[stop], path.length / 2 - 1))})`);
    }
    kinds.forEach((kind, k) => {
      kind.paths.forEach((each, b) => { cells[b][k].textContent = b ? number(each.ulps[stop]) : "–"; });
      const station = stationOf(kind, stop);
      lossCells[k].textContent = station ? number(station.loss) : "–";
      if (ofFan[k].checked) drawFan(kind, station);
    });
  };
  slider.addEventListener("input", draw);

  // Twelve seconds from end to end.
  const play = document.getElementById("play");
  let begun = null;
  const pause = () => { begun = null; play.textContent = "Play"; };
  const move = (now) => {
    if (begun === null) return;
    const stop = Math.floor(((now - begun) / 12000) * slider.max);
    if (stop > slider.max) return pause();
    if (stop !== Number(slider.value)) { slider.value = stop; draw(); }
    requestAnimationFrame(move);
  };
  play.addEventListener("click", () => {
    if (begun !== null) return pause();
    const from = slider.value === slider.max ? 0 : Number(slider.value);
    begun = performance.now() - (from / slider.max) * 12000;
    play.textContent = "Pause";
    requestAnimationFrame(move);
  });
  slider.addEventListener("pointerdown", pause);
  slider.addEventListener("keydown", pause);
  slider.value = Math.floor(0.4 * slider.max);
  draw();
})();
