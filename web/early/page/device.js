// One device: checks in, trains, makes its report durable, sends it until it has a receipt, and begins again.

import { decode, digest, encode, frame } from "./codec.js";
import { difference, prove, unfit } from "./fit.js";
import { Connection, Refused } from "./protocol.js";
import { newKey } from "./signing.js";
import { train } from "./train.js";

const TASKS = ["regression"];
const POLL_SECONDS = 20;
const MOST_SECONDS_AWAY = 30;
const MODEL_BYTES = 16 << 20;
const WEIGHT_UNIT = 2 ** 16;
const DROPPED = [404, 410]; // the round went on without this device

/** A participant with its rows. `changed` is called with what it does now, and whenever a release was noted. */
export class Device {
  #kept;
  #step;
  #rows;
  #changed;
  #url;
  #connection;
  #models = new Map();

  constructor(url, kept, step, rows, changed) {
    this.#url = url;
    this.#kept = kept;
    this.#step = step;
    this.#rows = rows;
    this.#changed = changed;
  }

  /** Bind `name` to a key of this browser with an enrolment token; later visits need none. */
  async join(name, token) {
    let identity = await this.#kept.get("device", "identity");
    if (identity === undefined) {
      identity = { name, ...(await newKey()) };
      await this.#kept.put("device", "identity", identity); // durable before it is shown to anyone
    }
    if (identity.name !== name) throw new Error(`this browser is ${identity.name}`);
    this.#connection = new Connection(this.#url, identity);
    if (identity.device === undefined) {
      const reply = await this.#connection.enrol(name, token);
      await this.#kept.put("device", "identity", { ...identity, device: reply.device });
    }
  }

  /** Take part until something happens that only a person can mend. */
  async run() {
    for (let failures = 0; ; ) {
      try {
        await this.#turn();
        failures = 0;
      } catch (error) {
        if (!error.transient && !DROPPED.includes(error.status)) throw error;
        const pause = Math.min(2 ** failures, MOST_SECONDS_AWAY);
        failures += 1;
        this.#changed(`${error.message} (next try in ${pause} s)`);
        await seconds(pause);
      }
    }
  }

  async #turn() {
    for (const report of await this.#kept.all("outbox")) await this.#deliver(report);
    const started = performance.now();
    const reply = await this.#connection.checkIn(TASKS, POLL_SECONDS);
    if (reply.assignment !== null) return this.#carryOut(reply.assignment);
    this.#changed(reply.reason);
    return seconds(reply.retry_after - (performance.now() - started) / 1000); // a held call has waited already
  }

  async #carryOut(assignment) {
    this.#changed(`training round ${assignment.round} of ${assignment.task}`);
    const started = performance.now();
    const model = await this.#model(assignment.task);
    if (model.reason !== "") {
      await this.#connection.release(assignment.id, model.reason);
      throw new Error(model.reason);
    }
    const travelling = decode(await this.#connection.blob(assignment.version, MODEL_BYTES));
    const before = new Map([...model.frozen, ...travelling]);
    const { arrays, loss } = await train(this.#step, model.spec.local, before, this.#rows, assignment.seed);
    const change = difference(before, arrays);
    await this.#release(assignment, change, loss, (performance.now() - started) / 1000);
  }

  async #model(task) {
    if (!this.#models.has(task)) this.#models.set(task, await this.#proved(task));
    return this.#models.get(task);
  }

  async #proved(task) {
    const spec = await this.#connection.task(task);
    const reason = unfit(spec, this.#step);
    if (reason !== "") return { reason };
    const fetched = [spec.initial, spec.frozen, spec.golden].map((each) => this.#connection.blob(each, MODEL_BYTES));
    const [initial, frozen, golden] = (await Promise.all(fetched)).map(decode);
    await prove(this.#step, new Map([...initial, ...frozen]), golden, spec.local.optimizer.options.lr);
    return { reason, spec, frozen };
  }

  async #release(assignment, change, loss, trainSeconds) {
    const arrays = encode(new Map([...change].map(([name, value]) => [`delta/${name}`, value])));
    const head = {
      digest: await digest(arrays),
      size: arrays.length,
      weight: this.#rows.count * WEIGHT_UNIT,
      metrics: { loss },
      costs: { train_seconds: trainSeconds },
    };
    const { id, task, round } = assignment;
    const what = `change of ${change.size} arrays, length ${length(change)}, learnt from ${this.#rows.count} rows`;
    const release = { time: Date.now(), task, round, what, bytes: arrays.length, digest: head.digest };
    await this.#kept.put("releases", id, release);
    const report = { assignment: id, release, body: frame(head, arrays) };
    await this.#kept.put("outbox", id, report);
    this.#changed(`releasing to ${task} ${what}`);
    await this.#deliver(report);
  }

  /** Send a durable report until it has its receipt, or a final answer that it will get none. */
  async #deliver({ assignment, release, body }) {
    let received;
    try {
      received = (await this.#connection.report(assignment, body)).accepted_at;
    } catch (error) {
      if (!(error instanceof Refused) || error.transient) throw error;
      received = error.message;
    }
    await this.#kept.put("releases", assignment, { ...release, received });
    await this.#kept.delete("outbox", assignment);
    this.#changed("waiting for the next round");
  }
}

function length(change) {
  const squares = [...change.values()].flatMap(({ values }) => Array.from(values, (value) => value * value));
  return Math.sqrt(squares.reduce((sum, square) => sum + square, 0)).toPrecision(4);
}

function seconds(count) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(0, count) * 1000));
}
