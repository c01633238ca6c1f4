"""What gradio's folds do not say, whether they are open; and which folds of ours stay open."""

SCRIPT = """
if (!window.studioFolds) {
  window.studioFolds = true;
  const tell = () => document.querySelectorAll('.label-wrap').forEach(fold => {
    const open = `${fold.classList.contains('open')}`;
    if (fold.ariaExpanded !== open) fold.ariaExpanded = open;
  });
  let due = false;
  const soon = () => { if (!due) { due = true; requestAnimationFrame(() => { due = false; tell(); }); } };
  new MutationObserver(soon).observe(document.body, {childList: true, subtree: true});
  document.addEventListener('click', event => { if (event.target.closest?.('.label-wrap')) setTimeout(tell, 50); });
  tell();
}
"""
"""Tells screen readers; for ``gr.HTML(js_on_load=...)``."""

STAY = """
{
  const folded = new Map();
  element.addEventListener('click', event => {
    const fold = event.target.closest('summary')?.parentElement;
    if (fold) folded.set(fold.dataset.kind, !fold.open);
  });
  new MutationObserver(() => element.querySelectorAll('details').forEach(fold => {
    const open = folded.get(fold.dataset.kind) ?? fold.open;
    if (fold.open !== open) fold.open = open;
  })).observe(element, {childList: true, subtree: true, attributeFilter: ['open', 'data-kind']});
}
"""
"""Keeps ``<details data-kind=…>`` as the reader left them when they are drawn anew, by which gradio closes them: that
is an event ``toggle``, too, so her press itself is heeded. For ``gr.HTML(js_on_load=...)``.
"""
