// Pictures that are dropped, pasted or chosen, as the server takes them.

import { inMegabytes } from "./dom.js";

/** Hand files on, whichever of the three ways they come in. */
export function takeFiles(zone, inputs, take) {
  for (const input of inputs) {
    input.addEventListener("change", () => {
      if (input.files.length) take([...input.files]);
      input.value = ""; // the same file may be chosen again
    });
  }
  zone.addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
}

/** Hand on pictures that are pasted while a view is shown. */
export function takePasted(view, take) {
  document.addEventListener("paste", (event) => {
    const pictures = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (view.hidden || pictures.length === 0) return;
    event.preventDefault();
    take(pictures);
  });
}

/** Raise where a picture is larger than the server takes. */
export function checkSize(file, limits) {
  const most = Math.min(limits.max_image_bytes, Math.floor((limits.max_body_bytes - 65536) * 0.75));
  if (file.size > most) {
    throw new Error(`${file.name} has ${inMegabytes(file.size)}; the server takes pictures of up to ${inMegabytes(most)}.`);
  }
}

export function readAsUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => {
      // The server finds out by itself what kind of picture it is.
      resolve(`data:image/*;base64,${reader.result.slice(reader.result.indexOf(",") + 1)}`);
    });
    reader.addEventListener("error", () => reject(new Error(`${file.name} cannot be read.`)));
    reader.readAsDataURL(file);
  });
}
