// OpenAI's SDK for JavaScript against a gateway whose worker answers with the words of the
// prompt. Nothing but the base URL is ours. The Go test beside this folder runs it.
import assert from "node:assert/strict";
import { File } from "node:buffer";
import { test } from "node:test";
import OpenAI, { APIConnectionTimeoutError, APIUserAbortError, toFile } from "openai";

globalThis.File ??= File; // which Node 18 has not as a global yet

const model = "test-model";
const base = process.env.HELICON_TEST_URL;
const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: "none" });
const ask = (text) => ({ model, messages: [{ role: "user", content: text }] });

// ended waits for the end of a job and returns its state.
async function ended(id) {
  const response = await fetch(`${base}/v1/jobs/${id}/events`);
  await response.text(); // the stream ends with the job
  return (await (await fetch(`${base}/v1/jobs/${id}`)).json()).state;
}

test("models", async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.deepEqual(ids, [model]);
  const one = await client.models.retrieve(model);
  assert.equal(one.owned_by, "helicon");
  await assert.rejects(client.models.retrieve("org/none"), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
});

test("chat", async () => {
  const { data, response, request_id } = await client.chat.completions
    .create({ ...ask("one two three"), n: 2, seed: 7, stop: ["three"], max_completion_tokens: 5, logprobs: true, top_logprobs: 1, metadata: { a: "b" }, user: "me", store: true })
    .withResponse();
  assert.equal(data.choices.length, 2);
  assert.equal(data.choices[1].message.content, "1one 1two 1three");
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.equal(data.choices[0].logprobs.content[0].top_logprobs.length, 1);
  assert.equal(data.usage.total_tokens, 9);
  assert.equal(request_id, response.headers.get("x-request-id"));
  assert.match(response.headers.get("openai-processing-ms"), /^\d+$/);
});

test("streamed chat", async () => {
  const stream = await client.chat.completions.create({ ...ask("one two three"), stream: true, stream_options: { include_usage: true } });
  let text = "", usage, reason;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    reason = chunk.choices[0]?.finish_reason ?? reason;
    usage = chunk.usage ?? usage;
  }
  assert.deepEqual([text, reason, usage.completion_tokens], ["one two three", "stop", 3]);
  const helper = client.chat.completions.stream(ask("four five"));
  assert.equal((await helper.finalChatCompletion()).choices[0].message.content, "four five");
});

test("completions", async () => {
  const whole = await client.completions.create({ model, prompt: ["a b", "c"], max_tokens: 1 });
  assert.deepEqual(whole.choices.map((c) => [c.text, c.finish_reason]), [["a ", "length"], ["c", "stop"]]);
  let text = "";
  for await (const chunk of await client.completions.create({ model, prompt: "a b", stream: true })) text += chunk.choices[0].text;
  assert.equal(text, "a b");
});

test("responses", async () => {
  const first = await client.responses.create({ model, input: "one two", instructions: "Be brief." });
  assert.deepEqual([first.output_text, first.status, first.usage.total_tokens], ["one two", "completed", 4]);
  const second = await client.responses.create({ model, input: [{ role: "user", content: [{ type: "input_text", text: "three" }] }], previous_response_id: first.id });
  assert.equal(second.output_text, "three");
  assert.equal((await client.responses.retrieve(first.id)).output_text, "one two");
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test("streamed responses", async () => {
  const types = [];
  for await (const e of await client.responses.create({ model, input: "one two", stream: true })) {
    assert.equal(e.sequence_number, types.length);
    types.push(e.type.replace("response.", ""));
  }
  assert.equal(types.join(" "), "created in_progress output_item.added content_part.added output_text.delta output_text.delta " +
    "output_text.done content_part.done output_item.done completed");
  const final = await client.responses.stream({ model, input: "one two" }).finalResponse();
  assert.equal(final.output_text, "one two");
});

test("responses in the background", async () => {
  let r = await client.responses.create({ model, input: "one two", background: true });
  while (r.status === "queued" || r.status === "in_progress") r = await client.responses.retrieve(r.id);
  assert.equal(r.output_text, "one two");
  let text = "";
  for await (const e of await client.responses.retrieve(r.id, { stream: true, starting_after: 5 })) if (e.type === "response.output_text.delta") text += e.delta;
  assert.equal(text, "two");
  const hanging = await client.responses.create({ model, input: "hang", background: true });
  assert.equal((await client.responses.cancel(hanging.id)).status, "cancelled");
});

test("embeddings", async () => {
  // The SDK asks for base64 unless it is told otherwise.
  for (const more of [{}, { encoding_format: "float" }]) {
    const { data, usage } = await client.embeddings.create({ model, input: ["a", "b"], ...more });
    assert.deepEqual([Array.from(data[0].embedding), Array.from(data[1].embedding)], [[1, 0], [0, -1]]);
    assert.equal(usage.total_tokens, 7);
  }
});

test("images", async () => {
  const decode = (b64) => Buffer.from(b64, "base64").toString();
  const pixel = () => toFile(Buffer.from("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==", "base64"), "a.png", { type: "image/png" });
  const inline = await client.images.generate({ model, prompt: "a fox", n: 2, response_format: "b64_json", size: "512x512" });
  assert.match(decode(inline.data[1].b64_json), /^picture 1/);
  assert.equal(inline.data[0].url, undefined);
  const linked = await client.images.generate({ model, prompt: "a fox", response_format: "url" });
  assert.match(await (await fetch(linked.data[0].url)).text(), /^picture 0/);
  const edited = await client.images.edit({ model, image: await pixel(), mask: await pixel(), prompt: "red" });
  assert.match(decode(edited.data[0].b64_json), /^picture 0/);
  const varied = await client.images.createVariation({ image: await pixel(), n: 2 });
  assert.equal(varied.data.length, 2);
  for (const [stream, kind] of [
    [await client.images.generate({ model, prompt: "a fox", stream: true, partial_images: 2 }), "image_generation"],
    [await client.images.edit({ model, image: [await pixel()], prompt: "red", stream: true, partial_images: 1 }), "image_edit"],
  ]) {
    const types = [];
    for await (const e of stream) types.push(e.type);
    assert.equal(types.at(-1), `${kind}.completed`);
    assert.equal(types[0], `${kind}.partial_image`);
  }
});

test("files and batches", async () => {
  const row = (id, body) => JSON.stringify({ custom_id: id, method: "POST", url: "/v1/chat/completions", body }) + "\n";
  const text = row("a", ask("one two")) + row("b", { ...ask("three"), temperature: 99 });
  const file = await client.files.create({ file: await toFile(Buffer.from(text), "rows.jsonl"), purpose: "batch" });
  assert.deepEqual([file.filename, file.bytes, (await client.files.retrieve(file.id)).purpose], ["rows.jsonl", text.length, "batch"]);
  assert.equal(await (await client.files.content(file.id)).text(), text);
  const ids = [];
  for await (const f of client.files.list({ purpose: "batch" })) ids.push(f.id);
  assert.ok(ids.includes(file.id));
  const create = () => client.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h", metadata: { a: "b" } });
  let batch = await create();
  while (!["completed", "failed"].includes(batch.status)) {
    await new Promise((wake) => setTimeout(wake, 20)); // as clients poll
    batch = await client.batches.retrieve(batch.id);
  }
  const { total, completed, failed } = batch.request_counts;
  assert.deepEqual([batch.status, total, completed, failed, batch.metadata.a], ["completed", 2, 1, 1, "b"]);
  const line = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
  assert.deepEqual([line.custom_id, line.response.body.choices[0].message.content], ["a", "one two"]);
  assert.equal(JSON.parse(await (await client.files.content(batch.error_file_id)).text()).response.status_code, 400);
  const listed = [];
  for await (const b of client.batches.list({ limit: 1 })) listed.push(b.id);
  assert.ok(listed.includes(batch.id));
  await assert.rejects(client.batches.cancel("batch_none"), OpenAI.NotFoundError);
  assert.equal((await client.files.delete(file.id)).deleted, true);
  await assert.rejects(client.files.retrieve(file.id), OpenAI.NotFoundError);
});

test("errors", async () => {
  const rejects = (promise, kind, status, code, param) =>
    assert.rejects(promise, (e) => {
      assert.ok(e instanceof kind, `${e}`);
      assert.deepEqual([e.status, e.code, e.param ?? null], [status, code, param]);
      assert.ok(e.requestID && e.type);
      return true;
    });
  const create = (body, options) => client.chat.completions.create(body, options);
  await rejects(create({ ...ask("x"), temperature: 3 }), OpenAI.BadRequestError, 400, "invalid_input", "temperature");
  await rejects(create({ ...ask("x"), colour: 1 }), OpenAI.BadRequestError, 400, "invalid_request", "colour");
  await rejects(create({ ...ask("x"), model: "none" }), OpenAI.NotFoundError, 404, "model_not_found", "model");
  await rejects(create(ask("fail")), OpenAI.InternalServerError, 500, "model_broken", null);
  await create(ask("x"), { idempotencyKey: "k" });
  const keyed = { headers: { "Idempotency-Key": "k1" } };
  await create(ask("x"), keyed);
  await rejects(create(ask("y"), keyed), OpenAI.UnprocessableEntityError, 422, "idempotency_key_reused", null);
  await rejects(client.moderations.create({ input: "x" }), OpenAI.InternalServerError, 501, "not_implemented", null);
  const strange = new OpenAI({ baseURL: `${base}/locked/v1`, apiKey: "wrong" });
  await rejects(strange.chat.completions.create(ask("x")), OpenAI.AuthenticationError, 401, "invalid_api_key", null);
});

test("retries", async () => {
  // The first attempt is answered 429 or 503, as a full or a stopping server answers.
  for (const first of [429, 503]) {
    const { data, response } = await client.chat.completions.create(ask(`busy ${first}`), { headers: { "X-Test-First": `${first}` } }).withResponse();
    assert.equal(data.choices[0].message.content, `busy ${first}`);
    assert.equal(response.headers.get("x-test-attempts"), "2");
  }
  await assert.rejects(client.chat.completions.create(ask("x"), { headers: { "X-Test-First": "429" }, maxRetries: 0 }), OpenAI.RateLimitError);
  // An attempt whose answer is lost, and its retry, are one job.
  const { response } = await client.images.generate({ prompt: "lost" }, { headers: { "X-Test-First": "lost" } }).withResponse();
  assert.equal(response.headers.get("x-test-jobs"), "1");
});

test("cancellation and timeouts", async () => {
  const controller = new AbortController();
  const stream = await client.chat.completions.create({ ...ask("hang"), stream: true }, { signal: controller.signal });
  let id;
  for await (const chunk of stream) {
    id = chunk.id.replace("chatcmpl-", "");
    if (chunk.choices[0].delta.content) break; // which closes the connection
  }
  assert.equal(await ended(id), "canceled");
  const left = client.chat.completions.create(ask("hang"), { signal: controller.signal });
  controller.abort();
  await assert.rejects(left, APIUserAbortError);
  await assert.rejects(client.chat.completions.create(ask("hang"), { timeout: 200, maxRetries: 0 }), APIConnectionTimeoutError);
});
