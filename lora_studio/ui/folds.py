"""What gradio's folds do not say: whether they are open."""

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
