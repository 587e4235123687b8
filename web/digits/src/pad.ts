// A square to draw in: with a finger, a pen or a mouse, and with the keyboard.

import type { Point, Stroke } from "./strokes.js";

/** Units that the square is wide and high, whatever its size on the screen. */
export const SIZE = 280;

const STEP = SIZE / 20;
const PEN = SIZE / 14;
const MOVES: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

/** What the pad tells: a drawing that changed, with whether its pen is still down, or a digit that was typed. */
export interface PadEvents {
  drawn(strokes: readonly Stroke[], unfinished: boolean): void;
  typed(digit: number): void;
  said(what: string): void;
}

export class Pad {
  readonly #canvas: HTMLCanvasElement;
  readonly #events: PadEvents;
  #strokes: Point[][] = [];
  #pointer: number | undefined;
  #cursor: Point | undefined;
  #penDown = false;

  constructor(canvas: HTMLCanvasElement, events: PadEvents) {
    this.#canvas = canvas;
    this.#events = events;
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#moved(event));
    for (const kind of ["pointerup", "pointercancel"] as const) canvas.addEventListener(kind, (event) => this.#up(event));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#hideCursor());
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  get strokes(): readonly Stroke[] {
    return this.#strokes;
  }

  clear(): void {
    this.#strokes = [];
    this.#penDown = false;
    this.#paint();
    this.#events.drawn(this.#strokes, false);
  }

  #down(event: PointerEvent): void {
    if (this.#pointer !== undefined || event.button !== 0) return;
    this.#pointer = event.pointerId;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#penDown = false;
    this.#strokes.push([this.#at(event)]);
    this.#hideCursor();
    this.#changed(true);
  }

  #moved(event: PointerEvent): void {
    if (event.pointerId !== this.#pointer) return;
    const points = event.getCoalescedEvents().map((each) => this.#at(each));
    this.#strokes.at(-1)!.push(...(points.length > 0 ? points : [this.#at(event)]));
    this.#changed(true);
  }

  #up(event: PointerEvent): void {
    if (event.pointerId !== this.#pointer) return;
    this.#pointer = undefined;
    this.#changed(false);
  }

  #at(event: MouseEvent): Point {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return { x: inside(((event.clientX - left) * SIZE) / width), y: inside(((event.clientY - top) * SIZE) / height) };
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = MOVES[event.key];
    if (move !== undefined) this.#step(move);
    else if (event.key === " ") this.#turnPen();
    else if (event.key === "Backspace" || event.key === "Delete") this.#emptied();
    else if (/^\d$/.test(event.key)) this.#events.typed(Number(event.key));
    else return;
    event.preventDefault();
  }

  #step([dx, dy]: readonly [number, number]): void {
    const { x, y } = this.#cursor ?? { x: SIZE / 2, y: SIZE / 5 };
    this.#cursor = { x: inside(x + dx), y: inside(y + dy) };
    if (this.#penDown) this.#strokes.at(-1)!.push(this.#cursor);
    this.#changed(this.#penDown);
  }

  #turnPen(): void {
    this.#cursor ??= { x: SIZE / 2, y: SIZE / 5 };
    this.#penDown = !this.#penDown;
    if (this.#penDown) this.#strokes.push([this.#cursor]);
    this.#events.said(this.#penDown ? "Pen down." : "Pen up.");
    this.#changed(this.#penDown);
  }

  #emptied(): void {
    this.clear();
    this.#events.said("Drawing cleared.");
  }

  #hideCursor(): void {
    this.#cursor = undefined;
    this.#penDown = false;
    this.#paint();
  }

  #changed(unfinished: boolean): void {
    this.#paint();
    this.#events.drawn(this.#strokes, unfinished);
  }

  #paint(): void {
    const canvas = this.#canvas;
    const pixels = Math.round(canvas.clientWidth * devicePixelRatio);
    if (pixels === 0) return;
    if (canvas.width !== pixels) [canvas.width, canvas.height] = [pixels, pixels];
    const brush = canvas.getContext("2d")!;
    const style = getComputedStyle(canvas);
    brush.setTransform(pixels / SIZE, 0, 0, pixels / SIZE, 0, 0);
    brush.clearRect(0, 0, SIZE, SIZE);
    Object.assign(brush, { lineCap: "round", lineJoin: "round", lineWidth: PEN, strokeStyle: style.color });
    for (const stroke of this.#strokes) {
      brush.beginPath();
      stroke.forEach(({ x, y }, place) => (place === 0 ? brush.moveTo(x, y) : brush.lineTo(x, y)));
      if (stroke.length === 1) brush.lineTo(stroke[0]!.x, stroke[0]!.y);
      brush.stroke();
    }
    if (this.#cursor === undefined) return;
    Object.assign(brush, { lineWidth: 3, strokeStyle: style.getPropertyValue("--accent") });
    brush.beginPath();
    brush.arc(this.#cursor.x, this.#cursor.y, this.#penDown ? PEN / 2 : PEN, 0, 2 * Math.PI);
    brush.stroke();
  }
}

function inside(value: number): number {
  return Math.min(Math.max(value, 0), SIZE);
}
