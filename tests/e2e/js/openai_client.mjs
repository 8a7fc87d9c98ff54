// The official OpenAI package for Node.js against a running daemon: prints what it got, as one JSON object.
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const capital = [{ role: "user", content: "Name the capital city of France." }];
const weather = {
  type: "function",
  function: {
    name: "weather",
    parameters: {
      type: "object",
      properties: { city: { type: "string", maxLength: 20 }, days: { type: "integer", minimum: 1, maximum: 7 } },
      required: ["city", "days"],
      additionalProperties: false,
    },
  },
};
const got = {};

const answer = await client.chat.completions.create({ model, messages: capital, temperature: 0 });
got.chat = answer.choices[0].message.content;

const pieces = [];
for await (const chunk of await client.chat.completions.create({
  model, messages: capital, temperature: 0, stream: true, stream_options: { include_usage: true },
})) {
  pieces.push(chunk.choices[0]?.delta.content ?? "");
  got.usage = chunk.usage ?? got.usage;
}
got.stream = pieces.join("");

const runner = client.chat.completions.stream({
  model, messages: capital, tools: [weather], tool_choice: "required", parallel_tool_calls: false, seed: 1, max_tokens: 120,
});
let argumentDeltas = 0;
runner.on("tool_calls.function.arguments.delta", () => argumentDeltas++);
const final = await runner.finalChatCompletion();
got.call = final.choices[0].message.tool_calls[0].function;
got.finishReason = final.choices[0].finish_reason;
got.argumentDeltas = argumentDeltas;

const completion = await client.completions.create({ model, prompt: "1, 2, 3, 4, 5, 6, 7,", temperature: 0, max_tokens: 6 });
got.completion = completion.choices[0].text;

const embedding = await client.embeddings.create({ model, input: ["red", "blue"] });
got.embeddings = embedding.data.map((row) => Math.hypot(...row.embedding));

const response = await client.responses.create({ model, input: "Name the capital city of France.", temperature: 0 });
got.response = response.output_text;
const followUp = client.responses.stream({ model, input: "And of Norway?", previous_response_id: response.id, max_output_tokens: 8 });
const events = [];
for await (const event of followUp) events.push(event.type);
got.events = [events[0], events[1], events.at(-1)];

try {
  await client.chat.completions.create({ model: "nope", messages: capital });
} catch (error) {
  got.error = [error instanceof OpenAI.NotFoundError, error.status, error.type];
}
console.log(JSON.stringify(got));
