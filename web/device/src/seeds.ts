// Seeds, and the order of examples, number for number those of numpy's Generator(Philox(seed)).

const MASK = (1n << 64n) - 1n;
const MULTIPLY = [0xd2e7470ee14c6c93n, 0xca5a826395121157n] as const;
const WEYL = [0x9e3779b97f4a7c15n, 0xbb67ae8584caa73bn] as const;
const ROUNDS = 10;

type Block = [bigint, bigint, bigint, bigint];

/** Hash integers and texts to a seed below 2**53. */
export async function derive(...parts: readonly (number | string)[]): Promise<number> {
  const text = parts.map((part) => `${typeof part === "number" ? "int" : "str"}:${part}`).join("\x1f");
  const hashed = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Number(new DataView(hashed).getBigUint64(0, true) >> 11n);
}

/** Return the order in which `rows` examples are visited: a shuffle from the last place to the first. */
export function permutation(seed: number, rows: number): number[] {
  const random = new Philox(seed);
  const order = Array.from({ length: rows }, (_, place) => place);
  for (let last = rows - 1; last > 0; last -= 1) {
    const other = random.upTo(last);
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}

/** Philox4x64-10: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3". */
export class Philox {
  readonly #key: readonly [bigint, bigint];
  #counter = 0n;
  #words: bigint[] = [];
  #half: number | undefined;

  constructor(seed: number) {
    const [a, b, c, d] = seedSequence(seed, 4) as [number, number, number, number];
    this.#key = [BigInt(a) | (BigInt(b) << 32n), BigInt(c) | (BigInt(d) << 32n)];
  }

  /** Return an integer in [0, last], last below 2**32: random bits of its length, until they are not above it. */
  upTo(last: number): number {
    const mask = 2 ** (32 - Math.clz32(last)) - 1;
    for (;;) {
      const value = (this.next32() & mask) >>> 0;
      if (value <= last) return value;
    }
  }

  /** Return 32 random bits: the lower half of a word, then its upper half. */
  next32(): number {
    if (this.#half !== undefined) {
      const upper = this.#half;
      this.#half = undefined;
      return upper;
    }
    const word = this.next64();
    this.#half = Number(word >> 32n);
    return Number(word & 0xffffffffn);
  }

  /** Return 64 random bits. */
  next64(): bigint {
    if (this.#words.length === 0) {
      this.#counter += 1n;
      this.#words = block([this.#counter & MASK, this.#counter >> 64n, 0n, 0n], this.#key).reverse();
    }
    return this.#words.pop()!;
  }
}

function block([c0, c1, c2, c3]: Block, [k0, k1]: readonly [bigint, bigint]): Block {
  for (let round = 0; round < ROUNDS; round += 1) {
    const [p0, p1] = [MULTIPLY[0] * c0, MULTIPLY[1] * c2];
    [c0, c1, c2, c3] = [(p1 >> 64n) ^ c1 ^ k0, p1 & MASK, (p0 >> 64n) ^ c3 ^ k1, p0 & MASK];
    [k0, k1] = [(k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK];
  }
  return [c0, c1, c2, c3];
}

// numpy's SeedSequence (M. O'Neill's seed_seq_fe) over a seed of at most 53 bits: 32-bit words to seed a generator with
function seedSequence(seed: number, count: number): number[] {
  const entropy = [seed % 2 ** 32, Math.floor(seed / 2 ** 32)];
  const pool = [0, 1, 2, 3];
  let constant = 0x43b0d7e5;
  const hashed = (given: number): number => {
    let value = (given ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  for (const place of [0, 1, 2, 3]) pool[place] = hashed(entropy[place] ?? 0);
  for (const from of [0, 1, 2, 3]) {
    for (const to of [0, 1, 2, 3]) if (from !== to) pool[to] = mixed(pool[to]!, hashed(pool[from]!));
  }
  constant = 0x8b51f9dd;
  return Array.from({ length: count }, (_, place) => {
    let value = (pool[place % 4]! ^ constant) >>> 0;
    constant = Math.imul(constant, 0x58f38ded) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  });
}

function mixed(left: number, right: number): number {
  const value = (Math.imul(left, 0xca01f9dd) - Math.imul(right, 0x4973f715)) >>> 0;
  return (value ^ (value >>> 16)) >>> 0;
}
