// Inputs as pictures: numbers in the model's range, channels first.

export function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

export function draw(canvas, values, shape, [low, high]) {
  const [channels, height, width] = shape;
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  const size = width * height;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      const value = values[i + size * Math.min(c, channels - 1)];
      picture.data[4 * i + c] = (255 * (value - low)) / (high - low);
    }
    picture.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

export function canDraw(shape) {
  return shape.length === 3 && (shape[0] === 1 || shape[0] === 3);
}

export function gaussian() {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}

export function noisy(values, sigma) {
  return values.map((value) => value + sigma * gaussian());
}

// Some changes of the same ℓ2 length, to see how much that is.
export function changes(shape) {
  const [channels, height, width] = shape;
  const size = channels * height * width;
  const side = Math.max(2, Math.round(Math.min(height, width) / 6));
  const inPatch = (i) => {
    const [y, x] = [Math.floor((i % (height * width)) / width), i % width];
    return Math.abs(y - height / 2) < side / 2 && Math.abs(x - width / 2) < side / 2;
  };
  return [
    ["noise in every pixel", Float32Array.from({ length: size }, gaussian)],
    ["everything lighter", new Float32Array(size).fill(1)],
    ["everything darker", new Float32Array(size).fill(-1)],
    ["one patch lighter", Float32Array.from({ length: size }, (_, i) => (inPatch(i) ? 1 : 0))],
  ];
}

export function moved(values, direction, length) {
  const norm = Math.hypot(...direction) || 1;
  return values.map((value, i) => value + (direction[i] * length) / norm);
}
