// The worker that trains: new Worker("worker.js", { type: "module" }).

import { serve } from "./trainer.js";

serve(self as unknown as DedicatedWorkerGlobalScope);
