// What can go wrong, by class. Every message names the thing, the value and the way out.

/** The root of what this package throws on purpose. `code` is stable. */
export class ShoalError extends Error {
  override readonly name: string = "ShoalError"; // a minifier renames classes
  readonly code: string;
  readonly problem: string;
  readonly fix: string;

  constructor(code: string, problem: string, fix: string) {
    super(`${problem}: ${fix}`);
    this.code = code;
    this.problem = problem;
    this.fix = fix;
  }

  /** Whether the same call may succeed later. */
  get transient(): boolean {
    return false;
  }
}

/** An answer other than 2xx, with the coordinator's words. */
export class Refused extends ShoalError {
  override readonly name = "Refused";
  readonly status: number;
  /** Seconds to wait before the next call, if the coordinator said so. */
  readonly retryAfter: number | undefined;

  constructor(status: number, said: { code: string; problem: string; fix: string }, retryAfter?: number) {
    super(said.code, said.problem, said.fix);
    this.status = status;
    this.retryAfter = retryAfter;
  }

  override get transient(): boolean {
    return this.status >= 500 || this.status === 408 || this.status === 429;
  }
}

/** No answer: the coordinator is away, or the device has no network. */
export class Unreachable extends ShoalError {
  override readonly name = "Unreachable";
  constructor(problem: string) {
    super("unreachable", problem, "check the address and the network; what is durable here is sent later");
  }

  override get transient(): boolean {
    return true;
  }
}

/** What came is not what its digest or its form says. */
export class Tampered extends ShoalError {
  override readonly name = "Tampered";
  constructor(problem: string) {
    super("tampered", problem, "somebody on the way changed it, or the coordinator is broken; nothing of it is used");
  }
}

/** No runtime here gives the golden step's result. */
export class RuntimeMismatch extends ShoalError {
  override readonly name = "RuntimeMismatch";
  constructor(problem: string) {
    super("runtime_mismatch", problem, "this device does not train this task; update the browser or the runtime");
  }
}

/** What this device's user does not let leave. */
export class NotPermitted extends ShoalError {
  override readonly name = "NotPermitted";
  constructor(problem: string, fix: string) {
    super("not_permitted", problem, fix);
  }
}

/** Examples that the task cannot use. */
export class DataError extends ShoalError {
  override readonly name = "DataError";
  constructor(problem: string, fix: string) {
    super("data_error", problem, fix);
  }
}

/** This browser or its storage cannot do what a device needs. */
export class Unsupported extends ShoalError {
  override readonly name = "Unsupported";
  constructor(problem: string, fix: string) {
    super("unsupported", problem, fix);
  }
}

/** The disk share that the browser grants is full. */
export class StorageFull extends ShoalError {
  override readonly name = "StorageFull";
  constructor(problem: string) {
    super("storage_full", problem, "free space on this device, or keep fewer examples (retention.count)");
  }
}

/** What a worker can send of an error: classes do not cross. */
export type Told = Pick<ShoalError, "code" | "problem" | "fix">;

/** Return the error that was told, of its class. */
export function raised({ code, problem, fix }: Told): ShoalError {
  const kinds = { stopped: Stopped, runtime_mismatch: RuntimeMismatch, tampered: Tampered } as const;
  const kind = kinds[code as keyof typeof kinds];
  return kind === undefined ? new ShoalError(code, problem, fix) : new kind(problem);
}

/** Work that was stopped on purpose: by a signal, or since a condition ended. */
export class Stopped extends ShoalError {
  override readonly name = "Stopped";
  constructor(why: string) {
    super("stopped", why, "nothing is lost; it goes on with the next turn");
  }
}
