// What a program does with the generated types; `tsc --strict` compiles it.
import type { components, operations } from "./api";

type Wanted = components["schemas"]["TextToImage"];
type Images = components["schemas"]["GeneratedImages"];
type Job = components["schemas"]["Job"];
type Accepted = operations["createJob"]["responses"][202]["content"]["application/json"];

const wanted: Wanted = {
  prompt: "a red circle",
  num_inference_steps: 20,
  loras: [{ name: "ink", weight: 0.8 }],
  output_format: "json",
};

// @ts-expect-error: there is no such format
const wrong: Wanted["output_format"] = "gif";

export async function generate(base: string): Promise<string> {
  const answer = await fetch(`${base}/txt2img`, { method: "POST", body: JSON.stringify(wanted) });
  const images = (await answer.json()) as Images;
  return images.images[0].image;
}

export function finished(job: Job | Accepted): boolean {
  return job.state === "succeeded" || job.state === "failed" || job.state === "cancelled";
}
