"""How the page looks: on a screen of any width, light or dark, and on paper."""

from typing import Final

CSS: Final = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #f6f7f9; --ink: #16191d; --faded: #5b6470; --grid: #d9dde3;
  --accent: #0b6e4f; --careful: #8a5a00; --careful-paper: #fff6e0;
  --s1: #0072b2; --s2: #d55e00; --s3: #009e73; --s4: #cc79a7;
  --s5: #b8860b; --s6: #56a4d9; --s7: #7a5195; --s8: #6b7280;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --raised: #1d2125; --ink: #eceff2; --faded: #a3acb6; --grid: #343a41;
  --accent: #5fd3a8; --careful: #ffcf70; --careful-paper: #2c2412;
  --s1: #4aa8e0; --s2: #f28e4c; --s3: #35c79b; --s4: #e3a0c6;
  --s5: #e6c35c; --s6: #9bd0f5; --s7: #b491d6; --s8: #a3acb6;
} }
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 74rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial,
    "DejaVu Sans", sans-serif;
}
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 3rem 0 0.4rem; }
h3 { font-size: 1.02rem; margin: 1.6rem 0 0.4rem; }
p, ul { margin: 0.5rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
li { margin: 0.25rem 0; overflow-wrap: anywhere; }
.faded, figcaption, th { color: var(--faded); }
header p { margin: 0.35rem 0 0; max-width: none; }
header .machine { font-size: 1.1rem; }
code { font: 0.9em ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre {
  background: var(--raised); padding: 0.8rem 1rem; border-radius: 6px; max-width: 46rem;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.best {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 0.8rem;
  margin: 1.6rem 0;
}
.best div { background: var(--raised); border-radius: 8px; padding: 0.9rem 1.1rem; }
.best b {
  display: block; font-size: 1.9rem; line-height: 1.2; color: var(--accent);
  font-variant-numeric: tabular-nums;
}
.best b small { font-size: 0.95rem; font-weight: 500; }
.best span { display: block; font-size: 0.9rem; color: var(--faded); }
.best span.noisy { color: var(--careful); }
.careful {
  background: var(--careful-paper); border-left: 4px solid var(--careful); border-radius: 4px;
  padding: 0.7rem 1.1rem; margin: 1.2rem 0;
}
summary { cursor: pointer; color: var(--faded); }
details b { color: inherit; }
.careful > b { color: var(--careful); }
.wide { overflow-x: auto; }
.wide td:first-child { position: sticky; left: 0; background: var(--paper); }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { padding: 0.42rem 0.6rem; text-align: right; border-bottom: 1px solid var(--grid); }
th { font-weight: 500; vertical-align: bottom; line-height: 1.25; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td { font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { font-weight: 600; }
td small {
  display: block; font-weight: 400; color: var(--faded); font-size: 0.85em; line-height: 1.2;
}
td:first-child small { white-space: normal; }
td small.noisy { color: var(--careful); }
tr.top td { color: var(--accent); }
tr.top td small:not(.noisy) { color: var(--faded); }
th.group { text-align: center; border-bottom: none; padding: 0 0.6rem; }
th.group span { display: block; border-bottom: 1px solid var(--grid); padding-bottom: 0.15rem; }
.plots {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)); gap: 1.2rem 2rem;
  align-items: start;
}
figure { margin: 0.6rem 0; }
figcaption { font-size: 0.86em; margin-top: 0.2rem; }
figcaption b { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-family: inherit !important; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1.2rem; margin: 0.6rem 0; }
dt { color: var(--faded); }
dd { margin: 0; overflow-wrap: anywhere; }
footer { margin-top: 3rem; color: var(--faded); font-size: 0.86rem; }
@media screen and (max-width: 78rem) {
  table.cases { font-size: 0.84rem; }
  table.cases th, table.cases td { padding-left: 0.3rem; padding-right: 0.3rem; }
  table.cases td:first-child { padding-left: 0; }
}
@media screen and (max-width: 46rem) {
  body { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  .best { grid-template-columns: 1fr 1fr; gap: 0.6rem; }
  .best div { padding: 0.7rem 0.8rem; }
  .best b { font-size: 1.5rem; }
  .plots { grid-template-columns: 1fr; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: 0.5rem; }
  table.cases thead { display: none; }
  table.cases, table.cases tbody { display: block; }
  table.cases tr {
    display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.3rem 0.8rem;
    padding: 0.8rem 0; border-bottom: 1px solid var(--grid);
  }
  table.cases td { display: block; border: none; padding: 0; text-align: left; }
  table.cases td:first-child, table.cases td:nth-child(2) { grid-column: 1 / -1; }
  table.cases td:not(:first-child)::before {
    content: attr(data-label); display: block; color: var(--faded); font-size: 0.74rem;
    line-height: 1.3;
  }
}
@media print {
  :root {
    --paper: #ffffff; --raised: #f4f5f7; --ink: #000000; --faded: #4a515a; --grid: #cfd4da;
    --accent: #0b6e4f; --careful: #8a5a00; --careful-paper: #fff6e0;
    --s1: #0072b2; --s2: #d55e00; --s3: #009e73; --s4: #cc79a7;
    --s5: #b8860b; --s6: #56a4d9; --s7: #7a5195; --s8: #6b7280;
  }
  @page { size: A4; margin: 14mm; }
  body { font-size: 10pt; padding: 0; max-width: none; print-color-adjust: exact; }
  h2 { margin-top: 1.6rem; }
  h2, h3 { break-after: avoid; }
  .wide { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: 0.25rem 0.22rem; }
  th.group { padding: 0 0.22rem; }
  .plots { grid-template-columns: 1fr 1fr; }
  details { display: none; }
  figure, tr, .best div, .careful, pre, dl { break-inside: avoid; }
}
"""
