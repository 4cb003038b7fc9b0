"use strict";
// The map of all images on a canvas: pan, zoom, hover, lasso. World coordinates run from 0 to 10,000 in both directions.

const WORLD = 10_000;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

class ImageMap {
  constructor(points, name, onSelect) {
    Object.assign(this, {
      name,
      onSelect,
      view: { x: 0, y: 0, scale: 1 },
      hover: -1,
      selected: new Uint8Array(N),
      selection: [],
      hidden: new Set(),
      mode: "pan",
      pointers: new Map(),
      path: null,
      discs: new Map(),
      rgbs: new Map(),
      images: new Map(),
      pictures: true,
      cursor: null,
    });
    this.xs = Float32Array.from(ALL_ROWS, (row) => points[2 * row]);
    this.ys = Float32Array.from(ALL_ROWS, (row) => WORLD - points[2 * row + 1]);
    this.colourings = colourings();
    this.colourBy = Object.keys(this.colourings)[0];
    this.#makeGrid();
    this.#build();
    this.recolour();
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
    darkScheme.addEventListener("change", () => this.recolour());
  }

  #build() {
    this.canvas = node("canvas", {
      tabindex: "0",
      role: "application",
      "aria-roledescription": "map of images",
      "aria-label": `Map of ${counted(N, "image")} (${this.name}). Arrow keys move it, plus and minus zoom, Enter opens the image at the cross, S selects what is in view, R draws a rectangle, Escape clears.`,
    });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true }); // its pixels are written here, not by the graphics card
    this.tip = node("div", { class: "tip", hidden: true });
    this.live = node("div", { class: "hidden-text", "aria-live": "polite" });
    const tool = (text, title, run) =>
      node("button", { type: "button", class: "action", title, "aria-label": title, onclick: run }, text);
    this.lasso = tool("Lasso", "Select images with a lasso (key L); holding Shift draws a rectangle", () =>
      this.setMode(this.mode === "lasso" ? "pan" : "lasso"),
    );
    this.thumbs = tool("Images", "Show the images themselves where few are in view (key I)", () =>
      this.togglePictures(),
    );
    press(this.lasso, false);
    press(this.thumbs, true);
    const names = Object.keys(this.colourings);
    this.select = node(
      "select",
      {
        "aria-label": "Colour by",
        onchange: () => {
          this.colourBy = names[this.select.selectedIndex];
          this.hidden.clear();
          this.recolour();
        },
      },
      names.map((name) => node("option", {}, name)),
    );
    this.legend = node("ul", { class: "legend", "aria-label": "Legend; a button hides or shows its images" });
    this.tools = node(
      "div",
      { class: "tools" },
      tool("+", "Zoom in (key +)", () => this.zoom(1.5)),
      tool("−", "Zoom out (key −)", () => this.zoom(1 / 1.5)),
      tool("Fit", "Fit all images into the map (key 0)", () => this.fit(true)),
      this.lasso,
      this.thumbs,
    );
    this.element = node(
      "div",
      { class: "map" },
      node("div", { class: "map-box" }, this.canvas, this.tools, this.tip, this.live),
      node("div", { class: "map-side" }, node("label", { class: "colour-by" }, "Colour by ", this.select), this.legend),
    );
    const on = (name, run, options) => this.canvas.addEventListener(name, run, options);
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.#up(event, true));
    on("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !this.pointers.size) this.#setHover(-1);
    });
    on(
      "wheel",
      (event) => {
        event.preventDefault();
        this.#zoomAt(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), event.offsetX, event.offsetY);
      },
      { passive: false },
    );
    on("dblclick", (event) => this.#zoomAt(2, event.offsetX, event.offsetY));
    on("keydown", (event) => this.#key(event));
    on("focus", () => {
      if (this.canvas.matches(":focus-visible")) {
        this.cursor = true;
        this.#hoverCross();
      }
    });
    on("blur", () => {
      this.cursor = null;
      this.#setHover(-1);
    });
  }

  // -- Colours

  recolour() {
    this.categories = this.colourings[this.colourBy]();
    const { names, counts, of } = this.categories;
    this.order = names.map(() => []);
    for (let row = 0; row < N; row++) this.order[of[row]].push(row);
    this.legend.replaceChildren(
      ...names.map((name, i) => (counts[i] ? this.#legendItem(name, i) : "")).filter(Boolean),
    );
    this.draw();
  }

  #legendItem(name, i) {
    const swatch = node("i", { class: "swatch" });
    swatch.style.background = this.categories.colours[i];
    const item = node(
      "button",
      {
        type: "button",
        "aria-pressed": String(!this.hidden.has(i)),
        onclick: () => {
          if (!this.hidden.delete(i)) this.hidden.add(i);
          press(item, !this.hidden.has(i));
          this.draw();
        },
      },
      swatch,
      foreign(name),
      node("span", { class: "n" }, this.categories.counts[i].toLocaleString("en")),
    );
    item.addEventListener("dblclick", () => {
      // that one alone
      this.hidden = new Set(this.categories.names.keys());
      this.hidden.delete(i);
      this.recolour();
    });
    return node("li", {}, item);
  }

  // -- View

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1,
      first = !this.width;
    Object.assign(this, { width, height, ratio });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.discs.clear();
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    if (first) this.fit();
    else this.draw(true);
  }

  fit(smooth = false) {
    const margin = 24,
      scale = Math.min(this.width - 2 * margin, this.height - 2 * margin) / WORLD;
    this.fitScale = scale;
    this.#goTo({ scale, x: WORLD / 2 - this.width / 2 / scale, y: WORLD / 2 - this.height / 2 / scale }, smooth);
  }

  /** Move the view to another, in a fifth of a second unless the user wants no motion. */
  #goTo(target, smooth) {
    cancelAnimationFrame(this.moving);
    if (!smooth || reducedMotion.matches) {
      this.view = target;
      this.draw();
      return;
    }
    const from = this.view,
      start = performance.now();
    const frame = (now) => {
      const t = Math.min((now - start) / 200, 1),
        part = t * (2 - t),
        mix = (a, b) => a + (b - a) * part;
      this.view = { x: mix(from.x, target.x), y: mix(from.y, target.y), scale: mix(from.scale, target.scale) };
      this.draw();
      if (t < 1) this.moving = requestAnimationFrame(frame);
    };
    this.moving = requestAnimationFrame(frame);
  }

  zoom(factor) {
    this.#zoomAt(factor, this.width / 2, this.height / 2);
    if (this.cursor) this.#hoverCross();
  }

  #zoomAt(factor, px, py) {
    const scale = Math.min(Math.max(this.view.scale * factor, this.fitScale / 2), this.fitScale * 400),
      { x, y, scale: old } = this.view;
    this.view = { scale, x: x + px / old - px / scale, y: y + py / old - py / scale };
    this.#setHover(-1);
    this.draw();
  }

  #pan(dx, dy) {
    this.view.x -= dx / this.view.scale;
    this.view.y -= dy / this.view.scale;
    this.draw();
  }

  #toScreen(row) {
    return [(this.xs[row] - this.view.x) * this.view.scale, (this.ys[row] - this.view.y) * this.view.scale];
  }

  #visible(row) {
    return !this.hidden.has(this.categories.of[row]);
  }

  // -- Drawing

  draw(now = false) {
    if (now) this.#draw();
    else if (!this.drawing)
      this.drawing = requestAnimationFrame(() => {
        this.drawing = 0;
        this.#draw();
      });
  }

  get radius() {
    const base = N > 10_000 ? 1.8 : N > 2_000 ? 2.6 : N > 400 ? 3.6 : 5;
    return Math.min(
      base *
        Math.max(1, (this.view.scale / this.fitScale) ** 0.35) *
        Math.max(1, Math.min(this.width, this.height) / 1100),
      9,
    );
  }

  #draw() {
    if (!this.width) return;
    const started = performance.now(),
      { context, ratio } = this,
      chosen = this.selection.length > 0;
    this.pixels.fill(0);
    this.order.forEach((rows, i) => {
      if (!this.hidden.has(i))
        this.#drawPoints(rows, this.categories.colours[i], this.radius, chosen ? 0.2 : 0.88, chosen ? 0 : -1);
    });
    if (chosen)
      this.order.forEach((rows, i) => {
        if (!this.hidden.has(i)) this.#drawPoints(rows, this.categories.colours[i], this.radius + 0.6, 1, 1);
      });
    context.putImageData(this.image, 0, 0);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.pictures) this.#drawPictures();
    this.#drawMarks();
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.frameTime = performance.now() - started;
  }

  /**
   * Write points into the pixels of the canvas, which takes a tenth of the time of 20,000 calls that draw them.
   * `only`: the value of `selected` of the rows that are drawn, -1 for all.
   */
  #drawPoints(rows, colour, radius, alpha, only) {
    const { pixels, ratio, xs, ys, selected } = this,
      { x, y, scale } = this.view,
      { width, height } = this.canvas;
    const disc = this.#disc(radius * ratio),
      k = scale * ratio,
      rgb = this.#rgb(colour),
      reach = disc.reach;
    const shades = Uint32Array.from(disc.cover, (cover) => (Math.round(cover * alpha * 255) << 24) | rgb);
    for (const row of rows) {
      if (only >= 0 && selected[row] !== only) continue;
      const px = Math.round((xs[row] - x) * k),
        py = Math.round((ys[row] - y) * k);
      if (px < reach || py < reach || px >= width - reach || py >= height - reach) continue;
      const at = py * width + px;
      for (let i = 0; i < shades.length; i++) {
        const to = at + disc.offsets[i];
        if (disc.cover[i] > 0.6 || pixels[to] === 0) pixels[to] = shades[i]; // a soft edge only on empty paper
      }
    }
  }

  /** The pixels of a disc around its middle, as offsets in the canvas, and how far the disc covers each. */
  #disc(radius) {
    const key = radius.toFixed(2);
    if (!this.discs.has(key)) {
      const reach = Math.ceil(radius + 0.5),
        offsets = [],
        cover = [];
      for (let dy = -reach; dy <= reach; dy++) {
        for (let dx = -reach; dx <= reach; dx++) {
          const share = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
          if (share > 0) {
            offsets.push(dy * this.canvas.width + dx);
            cover.push(share);
          }
        }
      }
      this.discs.set(key, { reach, offsets: Int32Array.from(offsets), cover: Float32Array.from(cover) });
    }
    return this.discs.get(key);
  }

  /** The red, green and blue of a colour as the canvas stores them. */
  #rgb(colour) {
    if (!this.rgbs.has(colour)) {
      const one = new OffscreenCanvas(1, 1).getContext("2d");
      one.fillStyle = colour;
      one.fillRect(0, 0, 1, 1);
      const [r, g, b] = one.getImageData(0, 0, 1, 1).data;
      this.rgbs.set(colour, (b << 16) | (g << 8) | r);
    }
    return this.rgbs.get(colour);
  }

  /** The images themselves, where at most a hundred or so are in view. */
  #drawPictures() {
    if (this.view.scale < this.fitScale * 1.5 && N > 60) return;
    const inside = this.#inRectangle(-20, -20, this.width + 20, this.height + 20, 161);
    if (inside.length > 160) return;
    const side = Math.max(36, Math.min(72, Math.sqrt((this.width * this.height) / (inside.length + 1)) * 0.5));
    for (const row of inside) {
      const picture = this.#image(row);
      if (!picture?.complete || !picture.naturalWidth) continue;
      const [px, py] = this.#toScreen(row),
        fit = side / Math.max(picture.naturalWidth, picture.naturalHeight),
        w = picture.naturalWidth * fit,
        h = picture.naturalHeight * fit;
      this.context.globalAlpha = this.selection.length && !this.selected[row] ? 0.35 : 1;
      this.context.drawImage(picture, px - w / 2, py - h / 2, w, h);
      this.context.strokeStyle = this.categories.colours[this.categories.of[row]];
      this.context.lineWidth = 2;
      this.context.strokeRect(px - w / 2, py - h / 2, w, h);
    }
    this.context.globalAlpha = 1;
  }

  #image(row) {
    if (!THUMBNAILS[row]) return null;
    if (!this.images.has(row)) {
      if (this.images.size > 1000) this.images.clear();
      const picture = thumbnail(row);
      picture.addEventListener("load", () => this.draw());
      this.images.set(row, picture);
    }
    return this.images.get(row);
  }

  /** The point under the pointer, the cross of the keyboard, and the lasso. */
  #drawMarks() {
    const { context } = this,
      ink = getComputedStyle(this.canvas).color;
    context.strokeStyle = ink;
    context.lineWidth = 2;
    if (this.hover >= 0) {
      const [px, py] = this.#toScreen(this.hover);
      context.beginPath();
      context.arc(px, py, this.radius + 3, 0, 2 * Math.PI);
      context.stroke();
    }
    if (this.cursor) {
      const [px, py] = [this.width / 2, this.height / 2];
      context.lineWidth = 1;
      context.beginPath();
      for (const [dx, dy] of [
        [1, 0],
        [-1, 0],
        [0, 1],
        [0, -1],
      ]) {
        context.moveTo(px + 6 * dx, py + 6 * dy);
        context.lineTo(px + 16 * dx, py + 16 * dy);
      }
      context.stroke();
    }
    const path = this.rectangle ? corners(this.rectangle) : this.path;
    if (path && path.length > 1) {
      context.beginPath();
      path.forEach(([px, py], i) => (i ? context.lineTo(px, py) : context.moveTo(px, py)));
      context.closePath();
      context.globalAlpha = 0.08;
      context.fillStyle = ink;
      context.fill();
      context.globalAlpha = 1;
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    }
  }

  // -- Finding points

  /** Rows by cells of a grid, so that looking under the pointer does not look at all of them. */
  #makeGrid() {
    this.cells = Math.max(1, Math.min(256, Math.round(Math.sqrt(N / 2))));
    this.grid = new Map();
    for (let row = 0; row < N; row++) {
      const key = this.#cell(this.xs[row]) * this.cells + this.#cell(this.ys[row]);
      if (!this.grid.has(key)) this.grid.set(key, []);
      this.grid.get(key).push(row);
    }
  }

  #cell(value) {
    return Math.max(0, Math.min(this.cells - 1, Math.floor((value / WORLD) * this.cells)));
  }

  /** Visible rows in a rectangle of the screen; it stops after `most` of them. */
  #inRectangle(left, top, right, bottom, most = Infinity) {
    const { x, y, scale } = this.view,
      [x0, x1, y0, y1] = [x + left / scale, x + right / scale, y + top / scale, y + bottom / scale],
      found = [];
    for (let i = this.#cell(x0); i <= this.#cell(x1); i++) {
      for (let j = this.#cell(y0); j <= this.#cell(y1); j++) {
        for (const row of this.grid.get(i * this.cells + j) ?? []) {
          const [px, py] = [this.xs[row], this.ys[row]];
          if (px >= x0 && px <= x1 && py >= y0 && py <= y1 && this.#visible(row) && found.push(row) >= most)
            return found;
        }
      }
    }
    return found;
  }

  #nearest(px, py, reach) {
    let best = -1,
      least = reach * reach;
    for (const row of this.#inRectangle(px - reach, py - reach, px + reach, py + reach)) {
      const [x, y] = this.#toScreen(row),
        distance = (x - px) ** 2 + (y - py) ** 2;
      if (distance <= least) {
        least = distance;
        best = row;
      }
    }
    return best;
  }

  #setHover(row, announce = false) {
    if (row === this.hover) return;
    this.hover = row;
    this.tip.hidden = row < 0;
    if (row >= 0) {
      this.tip.replaceChildren(
        thumbnail(row),
        node(
          "div",
          {},
          node("b", {}, foreign(newLabel(row) || "unlabelled")),
          tipFacts(row).map((fact) => node("div", {}, fact)),
          node("div", { class: "name" }, foreign(fileName(row))),
        ),
      );
      const [px, py] = this.#toScreen(row),
        { offsetWidth: width, offsetHeight: height } = this.tip;
      this.tip.style.left = `${Math.max(4, Math.min(px + 14 + width > this.width ? px - 14 - width : px + 14, this.width - width - 4))}px`;
      this.tip.style.top = `${Math.max(4, Math.min(py - height / 2, this.height - height - 4))}px`;
      if (announce) this.live.textContent = `${printable(fileName(row))}, ${printable(newLabel(row) || "unlabelled")}`;
    }
    this.canvas.style.cursor = row >= 0 ? "pointer" : this.mode === "lasso" ? "crosshair" : "grab";
    this.draw();
  }

  #hoverCross() {
    this.#setHover(this.#nearest(this.width / 2, this.height / 2, 120), true);
    this.draw();
  }

  // -- Selection

  setMode(mode) {
    this.mode = mode;
    press(this.lasso, mode === "lasso");
    this.canvas.style.cursor = mode === "lasso" ? "crosshair" : "grab";
  }

  togglePictures() {
    this.pictures = !this.pictures;
    press(this.thumbs, this.pictures);
    this.draw();
  }

  selectRows(rows, add = false) {
    if (!add) this.selected.fill(0);
    for (const row of rows) this.selected[row] = 1;
    this.selection = ALL_ROWS.filter((row) => this.selected[row]);
    this.live.textContent = `${counted(this.selection.length, "image")} selected`;
    this.onSelect(this.selection);
    this.draw();
  }

  #selectPath(path, add) {
    const xs = path.map(([x]) => x),
      ys = path.map(([, y]) => y);
    const inside = this.#inRectangle(Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys));
    this.selectRows(
      inside.filter((row) => isInside(this.#toScreen(row), path)),
      add,
    );
  }

  // -- Pointers

  #down(event) {
    if (event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true });
    this.cursor = null;
    this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
    this.start = [event.offsetX, event.offsetY];
    this.dragged = false;
    if (this.pointers.size > 1) this.path = this.rectangle = null;
    else if (event.shiftKey) this.rectangle = { x: event.offsetX, y: event.offsetY, w: 0, h: 0 };
    else if (this.mode === "lasso") this.path = [[event.offsetX, event.offsetY]];
  }

  #move(event) {
    const at = [event.offsetX, event.offsetY],
      before = this.pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") this.#setHover(this.#nearest(...at, 10));
      return;
    }
    if (Math.hypot(at[0] - this.start[0], at[1] - this.start[1]) > (event.pointerType === "mouse" ? 3 : 8))
      this.dragged = true;
    if (this.pointers.size === 2) this.#pinch(event.pointerId, before, at);
    else if (this.rectangle)
      Object.assign(this.rectangle, { w: at[0] - this.rectangle.x, h: at[1] - this.rectangle.y });
    else if (this.path) this.path.push(at);
    else if (this.dragged) {
      this.#setHover(-1);
      this.canvas.style.cursor = "grabbing";
      this.#pan(at[0] - before[0], at[1] - before[1]);
    }
    this.pointers.set(event.pointerId, at);
    if (this.path || this.rectangle) this.draw();
  }

  #pinch(id, before, at) {
    const [other] = [...this.pointers].filter(([key]) => key !== id).map(([, place]) => place);
    const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    this.#pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
    this.#zoomAt(distance(at, other) / distance(before, other), (at[0] + other[0]) / 2, (at[1] + other[1]) / 2);
    this.dragged = true;
  }

  #up(event, cancelled = false) {
    if (!this.pointers.delete(event.pointerId)) return;
    const path = this.rectangle ? corners(this.rectangle) : this.path,
      add = event.ctrlKey || event.metaKey;
    this.path = this.rectangle = null;
    this.canvas.style.cursor = this.mode === "lasso" ? "crosshair" : "grab";
    if (cancelled || this.pointers.size) return this.draw();
    if (path && this.dragged) this.#selectPath(path, add);
    else if (!this.dragged) this.#click(event);
    return this.draw();
  }

  #click(event) {
    const row = this.#nearest(event.offsetX, event.offsetY, event.pointerType === "mouse" ? 10 : 22);
    if (row < 0) {
      if (this.selection.length && event.pointerType === "mouse") this.selectRows([]);
      this.#setHover(-1);
      return;
    }
    if (event.pointerType !== "mouse" && row !== this.hover)
      this.#setHover(row); // the first tap shows it, the second opens it
    else openDetail(row, this.selected[row] ? this.selection : [row]);
  }

  // -- Keys

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] },
      [dx, dy] = arrows[event.key] ?? [0, 0],
      distance = 40;
    this.cursor = true;
    if (event.key in arrows && this.keyRectangle) this.#changeRectangle(dx * 20, dy * 20, event.shiftKey);
    else if (event.key in arrows) {
      this.#pan(-dx * distance, -dy * distance);
      this.#hoverCross();
    } else if (event.key === "+" || event.key === "=") this.zoom(1.3);
    else if (event.key === "-" || event.key === "_") this.zoom(1 / 1.3);
    else if (event.key === "0") {
      this.fit(true);
      this.#hoverCross();
    } else if (event.key === "l") this.setMode(this.mode === "lasso" ? "pan" : "lasso");
    else if (event.key === "i") this.togglePictures();
    else if (event.key === "s") this.selectRows(this.#inRectangle(0, 0, this.width, this.height));
    else if (event.key === "r") {
      this.keyRectangle = true;
      this.rectangle = { x: this.width / 4, y: this.height / 4, w: this.width / 2, h: this.height / 2 };
      this.live.textContent =
        "Rectangle: arrow keys move it, with Shift they change its size, Enter selects, Escape cancels";
    } else if (event.key === "Enter" && this.keyRectangle) {
      this.#selectPath(corners(this.rectangle), false);
      this.keyRectangle = this.rectangle = null;
    } else if (event.key === "Enter" && this.hover >= 0)
      openDetail(this.hover, this.selected[this.hover] ? this.selection : [this.hover]);
    else if (event.key === "Escape" && (this.keyRectangle || this.mode === "lasso")) {
      this.keyRectangle = this.rectangle = null;
      this.setMode("pan");
    } else if (event.key === "Escape" && this.selection.length) this.selectRows([]);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.draw();
  }

  #changeRectangle(dx, dy, size) {
    const box = this.rectangle;
    if (size) {
      box.w = Math.max(20, box.w + dx);
      box.h = Math.max(20, box.h + dy);
    } else {
      box.x += dx;
      box.y += dy;
    }
  }
}

const corners = ({ x, y, w, h }) => [
  [x, y],
  [x + w, y],
  [x + w, y + h],
  [x, y + h],
];

/** Whether a point lies inside a closed path: a ray from it crosses the path an odd number of times. */
function isInside([x, y], path) {
  let inside = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [xi, yi] = path[i],
      [xj, yj] = path[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}

function tipFacts(row) {
  const facts = [];
  if (DATA.splitNames.length > 1) facts.push(foreign(SPLIT_TEXT(newSplit(row))));
  if (isMistake(row))
    facts.push(
      node(
        "span",
        {},
        "predicted ",
        labelled(suggestedLabel(row)),
        confidence(row) === null ? "" : ` ${percent(confidence(row))}`,
      ),
    );
  if (problemsOf(row).length) facts.push(problemsOf(row).join(", "));
  return facts;
}
