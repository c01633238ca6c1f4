"""What the browser does with pictures that are dropped on the page, pasted or chosen: uploading, with progress."""

from __future__ import annotations

import json

from lora_studio.dataset import captions, intake, pictures
from lora_studio.language import tr
from lora_studio.ui import security, words
from lora_studio.ui.pages.pictures import uploads


def sign() -> str:
    """The sign over the page while something is dragged over it, and the progress of an upload, as HTML."""
    return (
        f'<div class="drop-here" hidden><p>{words.text(tr("Drop pictures, a folder or a ZIP"))}</p></div>'
        '<div class="uploading" role="status" hidden><p class="told"></p><div class="bar"><i></i></div>'
        f'<button type="button" class="quiet-button">{words.text(tr("Cancel"))}</button></div>'
    )


_KNOWN = {
    "endings": sorted({*intake.TYPES, *captions.UNREAD, *pictures.SUFFIXES, *pictures.FOREIGN}),
    "largest": security.MAX_UPLOAD,
    "most": uploads.MOST_FILES,
}

_TAKE = """
const filled = (text, parts) => text.replace(/\\{(\\w+)\\}/g, (field, name) => parts[name] ?? field);
const overlay = element.querySelector('.drop-here'), panel = element.querySelector('.uploading');
const line = panel.querySelector('p'), bar = panel.querySelector('.bar'), button = panel.querySelector('button');
const here = () => element.isConnected
  && document.getElementById('tab-pictures-button')?.getAttribute('aria-selected') === 'true';
const holdsFiles = event => [...event.dataTransfer?.types ?? []].includes('Files');
let request = null, cancelled = false, busy = false;

const tell = (text, share = null) => {
  panel.hidden = !text;
  line.textContent = text;
  bar.hidden = share === null;
  bar.firstChild.style.width = `${100 * (share ?? 0)}%`;
  button.textContent = share === null ? says.close : says.cancel;
};
button.addEventListener('click', () => { cancelled = true; request?.abort(); if (!busy) tell(''); });

const walk = async (entry, inside, found) => {
  if (entry instanceof File) return found.push([entry, entry.name]);
  if (inside && entry.name.startsWith('.') && entry.name !== '.lora_studio') return;
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return found.push([file, inside + entry.name]);
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) return;
    for (const one of some) await walk(one, `${inside}${entry.name}/`, found);
  }
};
const wanted = name => {
  const inner = name.toLowerCase().replace(/^.*\\//, '');
  return inner === 'preparation.json' || known.endings.some(one => inner.endsWith(one));
};
const post = (files, before, total) => new Promise((done, failed) => {
  const form = new FormData();
  for (const [file, name] of files) form.append('files', file, name.replace(/^.*\\//, ''));
  request = new XMLHttpRequest();
  request.open('POST', '/gradio_api/upload');
  request.upload.onprogress = event => {
    const share = (before + event.loaded) / total;
    tell(filled(says.uploading, {percent: Math.round(100 * share)}), share);
  };
  request.onload = () => request.status === 200 ? done(JSON.parse(request.responseText))
    : failed(new Error(request.responseText.slice(0, 300) || filled(says.failed, {status: request.status})));
  request.onerror = () => failed(new Error(says.silent));
  request.onabort = () => failed(new Error(says.cancelled));
  request.send(form);
});
const send = async found => {
  const files = found.filter(([, name]) => wanted(name)), others = found.filter(([, name]) => !wanted(name));
  const large = files.find(([file]) => file.size > known.largest);
  if (large) throw new Error(filled(says.large, {file: large[1], size: known.largest / 1024 ** 3}));
  if (files.length > known.most)
    throw new Error(filled(says.many, {count: files.length}));
  const total = files.reduce((sum, [file]) => sum + file.size, 0) || 1, kept = [];
  for (let at = 0, before = 0; at < files.length;) {
    const part = [];
    for (let size = 0; at < files.length && part.length < 50; at++) {
      size += files[at][0].size;
      if (part.length && size > 5e7) break;
      part.push(files[at]);
    }
    if (cancelled) throw new Error(says.cancelled);
    const paths = await post(part, before, total);
    part.forEach(([file, name], index) => { kept.push({path: paths[index], name}); before += file.size; });
  }
  trigger('upload', {files: kept, others: others.map(([, name]) => name)});
};
const take = async gather => {
  if (busy) return;
  busy = true; cancelled = false;
  try {
    tell(says.reading, 0);
    const found = [];
    await gather(found);
    if (found.length) await send(found);
    tell('');
  } catch (error) { tell(error.message || String(error)); }
  busy = false;
};
window.picturesTake = files => take(async found => files.forEach(one => found.push(one)));

let depth = 0;
const over = sign => { overlay.hidden = !sign; };
window.addEventListener('dragenter', event => { if (holdsFiles(event) && here()) { depth++; over(true); } }, true);
window.addEventListener('dragleave', event => {
  if (holdsFiles(event) && (--depth <= 0 || !event.relatedTarget)) { depth = 0; over(false); }
}, true);
window.addEventListener('dragover', event => { if (holdsFiles(event)) event.preventDefault(); }, true);
window.addEventListener('drop', event => {
  if (!holdsFiles(event)) return;
  event.preventDefault();
  depth = 0; over(false);
  if (!here()) return;
  event.stopPropagation();
  const entries = [...event.dataTransfer.items].filter(one => one.kind === 'file')
    .map(one => one.webkitGetAsEntry?.() ?? one.getAsFile()).filter(Boolean);
  take(async found => { for (const entry of entries) await walk(entry, '', found); });
}, true);
window.addEventListener('paste', event => {
  const files = [...event.clipboardData?.files ?? []];
  const typing = event.target.closest?.('input, textarea, [contenteditable="true"]');
  if (!here() || !files.length || (typing && event.clipboardData.types.includes('text/plain'))) return;
  event.preventDefault();
  const now = new Date(Date.now() - new Date().getTimezoneOffset() * 60000).toISOString();
  const stamp = now.slice(0, 19).replace('T', '-').replaceAll(':', '');
  const named = (file, at) => /^image\\.\\w+$/.test(file.name)
    ? file.name.replace('image', `pasted-${stamp}${at ? `-${at + 1}` : ''}`) : file.name;
  take(async found => files.forEach((file, at) => found.push([file, named(file, at)])));
});
"""


def take() -> str:
    """Takes what is dropped anywhere in the room, or pasted; a drop elsewhere does nothing, above all it does not leave
    the page. Triggers ``upload`` with the uploaded files; for ``gr.HTML(js_on_load=...)``.
    """
    says = {
        "close": tr("Close"),
        "cancel": tr("Cancel"),
        "reading": tr("Reading what was dropped…"),
        "uploading": tr("Uploading: {percent} %"),
        "cancelled": tr("The upload was cancelled."),
        "failed": tr("The upload failed ({status})."),
        "silent": tr("The studio does not answer. Is it still running?"),
        "large": tr("{file} is larger than {size} GB. Paste its path instead."),
        "many": tr("{count} files at once are too many. Paste the path of their folder instead."),
    }
    return f"const known = {json.dumps(_KNOWN)}, says = {json.dumps(says)};" + _TAKE


CHOOSE = """
element.addEventListener('click', event => {
  const place = event.target.closest('[data-path]'), pick = event.target.closest('[data-pick]');
  if (place) trigger('click', {folder: place.dataset.path});
  if (!pick) return;
  const input = Object.assign(document.createElement('input'), {type: 'file', multiple: true});
  if (pick.dataset.pick === 'folder') input.webkitdirectory = true;
  input.addEventListener('change', () =>
    window.picturesTake([...input.files].map(file => [file, file.webkitRelativePath || file.name])));
  input.click();
});
"""
"""Reports the folder that was pressed, and opens the system's dialog for files; for ``gr.HTML(js_on_load=...)``."""
