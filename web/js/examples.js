// Prompts to begin with, for someone who sees the studio for the first time. They
// ask for what the embedded models can do: children's stories, classical verse, stickers.

const examples = {
  'text.complete': {
    en: [
      'Once upon a time, a little fox found a red kite in the snow.',
      'Lily and Ben wanted to build a boat that could sail to the moon.',
      '春风',
    ],
    zh: [
      '床前明月光',
      '春风又绿江南岸，',
      'One day, a small dragon was afraid of fire.',
    ],
  },
  'image.generate': {
    en: [
      'A red apple, 3D glossy, on a blue background',
      'A purple cat sticker, flat',
      '火箭，像素画',
    ],
    zh: [
      '红苹果，3D 光泽，蓝色背景',
      '紫色的猫，扁平风格',
      'A rocket, pixel art',
    ],
  },
  'text.chat': {
    en: [
      'Write a story about a brave mouse and a lighthouse.',
      'Tell me a bedtime story with a happy ending.',
      '写一首五言绝句，题为《秋夜》',
    ],
    zh: [
      '写一首五言绝句，题为《秋夜》',
      '填一首《浣溪沙》',
      'Write a story about a brave mouse and a lighthouse.',
    ],
  },
};

/** Example prompts for a task in a language; none for tasks without. */
export const examplesFor = (task, language) => examples[task]?.[language] ?? [];
