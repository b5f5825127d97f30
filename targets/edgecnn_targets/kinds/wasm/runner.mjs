// Runs one .onnx file in ONNX Runtime Web, in WebAssembly as in a browser. The messages are those of runner.py:
// a line of JSON, of which "bytes" says how many raw bytes follow; "open", "run" and "time" are answered. "heap" is all of
// WebAssembly's memory, which only grows.

import * as ort from "onnxruntime-web";

const ONNX_TYPES = { float32: "tensor(float)", uint8: "tensor(uint8)", int8: "tensor(int8)" };
const TYPES = { float32: Float32Array, uint8: Uint8Array, int8: Int8Array };
let network = null;
console.log = console.error; // stdout carries answers
let memory = null;
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor) {
    super(descriptor);
    memory = this;
  }
};

const answers = {
  async open(request, raw) {
    ort.env.wasm.numThreads = request.threads;
    const session = await ort.InferenceSession.create(raw, { executionProviders: ["wasm"] });
    const [input] = session.inputMetadata;
    const port = (p) => ({ name: p.name, shape: p.shape, type: ONNX_TYPES[p.type] ?? p.type });
    const shape = [1, ...input.shape.slice(1)];
    const size = shape.reduce((a, b) => a * b, 1);
    network = { session, name: input.name, type: input.type, shape, size };
    return [{ inputs: session.inputMetadata.map(port), outputs: session.outputMetadata.map(port) }, []];
  },

  async run(request, raw) {
    const made = [];
    for (const image of images(raw)) made.push(await infer(image));
    return [{}, made];
  },

  async time(request, raw) {
    const [image] = images(raw);
    const ns = [];
    for (let k = 0; k < request.warmup + request.runs; k++) {
      const start = process.hrtime.bigint();
      await infer(image);
      ns.push(Number(process.hrtime.bigint() - start));
    }
    return [{ ns: ns.slice(request.warmup), heap: memory?.buffer.byteLength ?? null }, []];
  },
};

function* images(raw) {
  const all = new TYPES[network.type](raw.buffer, raw.byteOffset, raw.length / TYPES[network.type].BYTES_PER_ELEMENT);
  for (let at = 0; at < all.length; at += network.size) yield all.subarray(at, at + network.size);
}

async function infer(image) {
  const feeds = { [network.name]: new ort.Tensor(network.type, image, network.shape) };
  const [made] = Object.values(await network.session.run(feeds));
  return Buffer.from(made.data.buffer, made.data.byteOffset, made.data.byteLength);
}

async function* messages(stream) {
  let head = null;
  let pieces = [];
  let size = 0;
  for await (const piece of stream) {
    pieces.push(piece);
    size += piece.length;
    if (head !== null && size < head.bytes) continue; // joined once, when all is there
    let held = Buffer.concat(pieces, size);
    for (;;) {
      if (head === null) {
        const end = held.indexOf(10);
        if (end < 0) break;
        head = JSON.parse(held.subarray(0, end));
        held = held.subarray(end + 1);
      }
      if (held.length < head.bytes) break;
      yield [head, new Uint8Array(held.subarray(0, head.bytes))]; // a copy: aligned for every type
      held = held.subarray(head.bytes);
      head = null;
    }
    pieces = [held];
    size = held.length;
  }
}

for await (const [request, raw] of messages(process.stdin)) {
  let answer;
  try {
    answer = await answers[request.do](request, raw);
  } catch (error) {
    answer = [{ error: `${error.message ?? error}`.split(/\s+/).join(" ") }, []];
  }
  const payload = Buffer.concat(answer[1]);
  process.stdout.write(`${JSON.stringify({ ...answer[0], bytes: payload.length })}\n`);
  process.stdout.write(payload);
}
