// From strokes on a canvas to the 8 x 8 numbers that scikit-learn's digits have, and small changes of a hand.
//
// Those digits were scaled to bitmaps of 32 x 32, and each number counts the ink of a block of 4 x 4: 0 to 16. Measured
// over all 1,797, a digit fills the whole height, about 24 of 32 columns in the middle, and 30 % of its box is ink,
// whether it is a thin 1 or a round 8. So the pen here is as wide as makes it 30 %.

export interface Point {
  readonly x: number;
  readonly y: number;
}

/** What one touch drew, from pen down to pen up. */
export type Stroke = readonly Point[];

const SIDE = 32;
const BLOCK = 4;
const CELLS = SIDE / BLOCK;
const WIDEST = 24;
const INK = 0.3;
const THINNEST = 1.5;
const THICKEST = 5;
const FITS = 4;

/** A slight turn, slant and stretch: as the same hand would draw the same digit again. Angles in radians. */
export interface Sway {
  readonly turn: number;
  readonly slant: number;
  readonly stretch: number;
}

/** What one drawing is learnt as: itself and some ways to have drawn it a little differently. */
export const SWAYS: readonly Sway[] = [
  { turn: 0, slant: 0, stretch: 1 },
  { turn: 0.12, slant: 0, stretch: 1 },
  { turn: -0.12, slant: 0, stretch: 1 },
  { turn: 0, slant: 0.18, stretch: 1 },
  { turn: 0, slant: -0.18, stretch: 1 },
  { turn: 0.06, slant: 0.1, stretch: 0.85 },
  { turn: -0.06, slant: -0.1, stretch: 0.85 },
  { turn: 0.06, slant: -0.1, stretch: 1.15 },
  { turn: -0.06, slant: 0.1, stretch: 1.15 },
  { turn: 0, slant: 0, stretch: 0.85 },
];

/** Return the strokes as that sway would have drawn them, about the origin. */
export function swayed(strokes: readonly Stroke[], { turn, slant, stretch }: Sway): Stroke[] {
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return strokes.map((stroke) =>
    stroke.map(({ x, y }) => {
      const across = stretch * (x - slant * y);
      return { x: cos * across - sin * y, y: sin * across + cos * y };
    }),
  );
}

/** Return the 64 numbers of a drawing, row by row, each from 0 to 16. Without a point all are 0. */
export function numbersOf(strokes: readonly Stroke[]): Float32Array {
  const numbers = new Float32Array(CELLS * CELLS);
  const drawn = simpler(strokes.filter((stroke) => stroke.length > 0));
  if (drawn.length === 0) return numbers;
  let radius = 2;
  let distances = new Float64Array();
  // a thicker pen leaves less room for its middle line, which then takes another width
  for (let fit = 0; fit < FITS; fit += 1) {
    distances = distancesTo(fitted(drawn, radius));
    radius = Math.min(Math.max(distances.slice().sort()[Math.round(INK * distances.length)]!, THINNEST), THICKEST);
  }
  distances.forEach((distance, place) => {
    if (distance > radius) return;
    const row = Math.floor(place / SIDE / BLOCK);
    const column = Math.floor((place % SIDE) / BLOCK);
    numbers[row * CELLS + column]! += 1;
  });
  return numbers;
}

/** Leave out points that lie close to the one before: a finger gives hundreds, and each costs a look at every dot. */
function simpler(strokes: readonly Stroke[]): Stroke[] {
  const points = strokes.flat();
  const [left, right] = extent(points.map(({ x }) => x));
  const [top, bottom] = extent(points.map(({ y }) => y));
  const least = Math.max(right - left, bottom - top) / SIDE;
  return strokes.map((stroke) => {
    const kept = [stroke[0]!];
    for (const point of stroke) {
      const { x, y } = kept.at(-1)!;
      if (Math.hypot(point.x - x, point.y - y) >= least && point !== kept.at(-1)) kept.push(point);
    }
    const last = stroke.at(-1)!;
    return kept.at(-1) === last ? kept : [...kept, last];
  });
}

/** Scale so that the height is filled, squeeze what is too wide, and put it in the middle. */
function fitted(strokes: readonly Stroke[], radius: number): Stroke[] {
  const points = strokes.flat();
  const [left, right] = extent(points.map(({ x }) => x));
  const [top, bottom] = extent(points.map(({ y }) => y));
  const room = SIDE - 2 * radius;
  const down = room / Math.max(bottom - top, (right - left) / 4, 1e-6);
  const across = Math.min(down, (WIDEST - 2 * radius) / Math.max(right - left, 1e-6));
  const middle = { x: (left + right) / 2, y: (top + bottom) / 2 };
  return strokes.map((stroke) =>
    stroke.map(({ x, y }) => ({ x: SIDE / 2 + across * (x - middle.x), y: SIDE / 2 + down * (y - middle.y) })),
  );
}

function extent(values: readonly number[]): [number, number] {
  return values.reduce<[number, number]>(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

/** Return how far the middle of each pixel is from the nearest stroke, row by row. */
function distancesTo(strokes: readonly Stroke[]): Float64Array<ArrayBuffer> {
  const squares = new Float64Array(SIDE * SIDE).fill(Infinity);
  for (const stroke of strokes) {
    for (let end = stroke.length > 1 ? 1 : 0; end < stroke.length; end += 1) {
      nearer(squares, stroke[Math.max(end - 1, 0)]!, stroke[end]!);
    }
  }
  return squares.map(Math.sqrt);
}

/** Lower the squared distances to those from one straight piece. */
function nearer(squares: Float64Array, from: Point, to: Point): void {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const scale = 1 / Math.max(dx * dx + dy * dy, 1e-12);
  for (let row = 0, place = 0; row < SIDE; row += 1) {
    for (let column = 0; column < SIDE; column += 1, place += 1) {
      const [x, y] = [column + 0.5 - from.x, row + 0.5 - from.y];
      const along = Math.min(Math.max((x * dx + y * dy) * scale, 0), 1);
      const square = (x - along * dx) ** 2 + (y - along * dy) ** 2;
      if (square < squares[place]!) squares[place] = square;
    }
  }
}
