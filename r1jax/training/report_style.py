"""The look of a report: its style sheet."""

CSS = """
:root {
  --paper: #fdfdfb; --ink: #1d2024; --soft: #5d646c; --faint: #8d949b;
  --rule: #e3e4df; --card: #f5f5f0; --line: #2b5f9e; --eval: #b4552d;
  --good: #2f7d4f; --bad: #b23a3a; --think: #7b5ea7; --answer: #2f7d4f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --ink: #e4e5e2; --soft: #a5abb1; --faint: #7d848b;
    --rule: #2d3135; --card: #1e2125; --line: #7fb2ea; --eval: #e59a6f;
    --good: #74c693; --bad: #ec8d87; --think: #b9a0e0; --answer: #74c693;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 17px/1.55 "Iowan Old Style", "Palatino Linotype", Palatino,
    "Source Serif 4", "Noto Serif", Georgia, "Songti SC",
    "Noto Serif CJK SC", serif;
}
main { max-width: 1000px; margin: 0 auto; padding: 56px 28px 80px; }
header { border-bottom: 1px solid var(--rule); padding-bottom: 22px; }
section { margin-top: 46px; }
h1 { font-size: 38px; line-height: 1.15; font-weight: 600; margin: 0;
     letter-spacing: -.01em; text-wrap: balance; }
h2 { font-size: 23px; line-height: 1.3; font-weight: 600; margin: 0 0 16px; }
p { margin: 0; }
.subtitle { color: var(--soft); font-size: 19px; margin-top: 12px;
            max-width: 46em; }
.kicker, .name, .unit, .ci, .small, h3, .chart text, .meta, .reference,
figcaption, table, summary, .empty {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "Helvetica Neue", Arial, "PingFang SC", "Noto Sans CJK SC", sans-serif;
}
.kicker { color: var(--faint); font-size: 13px; letter-spacing: .06em;
          margin-bottom: 10px; }
.small { color: var(--faint); font-size: 13px; line-height: 1.5;
         margin-top: 12px; }
h2 + .small { margin-top: -10px; }
.cards { display: grid; gap: 14px;
         grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); }
.card { background: var(--card); border-radius: 8px; padding: 15px 17px 13px; }
.name { color: var(--soft); font-size: 13px; }
.figure { font-size: 31px; line-height: 1.3; white-space: nowrap;
          font-variant-numeric: lining-nums tabular-nums; }
.was { color: var(--faint); }
.arrow { color: var(--faint); font-size: 20px; margin: 0 .35em; }
.unit { color: var(--soft); font-size: 14px; }
.ci { color: var(--faint); font-size: 12px; min-height: 1.5em;
      font-variant-numeric: tabular-nums; }
.ci span { white-space: nowrap; }
.wide, .panel { display: grid; gap: 26px 30px; margin-top: 8px; }
.wide { grid-template-columns:
          repeat(auto-fit, minmax(min(100%, 380px), 1fr)); }
.panel { grid-template-columns: repeat(auto-fit, minmax(215px, 1fr));
         margin-top: 26px; gap: 22px 18px; }
.panel.thirds { grid-template-columns: repeat(auto-fit, minmax(270px, 1fr)); }
figure { margin: 0; break-inside: avoid; min-width: 0; }
h3 { font-size: 15px; font-weight: 600; margin: 0 0 4px; }
.panel h3 { font-size: 13px; }
.of { color: var(--faint); font-weight: 400; }
figcaption { color: var(--soft); font-size: 13px; line-height: 1.45; }
.empty { color: var(--faint); font-size: 13px; padding: 30px 0; }
.chart { display: block; width: 100%; height: auto; overflow: visible; }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.chart .axis { stroke: var(--faint); stroke-width: 1; fill: none; }
.chart text { font-size: 11px; fill: var(--soft);
              font-variant-numeric: tabular-nums; }
.panel .chart text { font-size: 13px; }
.chart .label { fill: var(--faint); }
.chart .raw { fill: var(--line); opacity: .28; }
.chart .line { fill: none; stroke: var(--line); stroke-width: 2.2;
               stroke-linejoin: round; stroke-linecap: round; }
.chart .eval { fill: none; stroke: var(--eval); stroke-width: 1.4;
               stroke-dasharray: 4 3; }
.chart .dot { fill: var(--eval); }
.chart .mark { stroke: var(--eval); stroke-width: 2; fill: var(--eval); }
.chart .mark.before { fill: var(--paper); }
.chart .whisker { stroke: var(--eval); stroke-width: 1.6; }
.chart .hover { fill: var(--ink); opacity: 0; }
.chart .hover:hover { opacity: .35; }
.key { display: inline-block; vertical-align: middle; margin: 0 6px 0 16px; }
.key:first-child { margin-left: 0; }
.key.raw { width: 6px; height: 6px; border-radius: 50%; opacity: .4;
           background: var(--line); }
.key.line { width: 20px; height: 0; border-top: 2px solid var(--line); }
.series1 { --line: var(--eval); }
.chart .line.series1, .chart .line.series3 { stroke-dasharray: 7 4; }
.series2 { --line: var(--think); }
.series3 { --line: var(--good); }
.key.before, .key.after { width: 9px; height: 9px; border-radius: 50%;
                          border: 2px solid var(--eval); }
.key.after { background: var(--eval); }
.notes p { max-width: 44em; color: var(--soft); }
.notes p + p { margin-top: 10px; }
article { border-top: 1px solid var(--rule); padding: 20px 0 26px; }
article:first-of-type { margin-top: 14px; }
.question { display: flex; flex-wrap: wrap; gap: 4px 24px;
            justify-content: space-between; align-items: baseline;
            margin-bottom: 12px; }
.question .text { flex: 1 1 20em; white-space: pre-wrap;
                  overflow-wrap: anywhere; }
.reference { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.reference b { color: var(--ink); font-size: 15px; margin-left: 4px; }
.sides { display: grid; gap: 14px;
         grid-template-columns:
           repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.response { background: var(--card); border-radius: 8px; min-width: 0;
            padding: 12px 16px 14px; }
.meta { display: flex; flex-wrap: wrap; gap: 4px 12px; align-items: center;
        font-size: 13px; color: var(--faint); margin-bottom: 8px; }
.when { color: var(--soft); }
.badge { font-weight: 600; }
.badge.correct { color: var(--good); }
.badge.wrong { color: var(--bad); }
.reward { margin-left: auto; font-variant-numeric: tabular-nums; }
pre, td { font-family: ui-monospace, SFMono-Regular, "Cascadia Mono", Menlo,
  Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace; }
pre { margin: 0; font-size: 13px; line-height: 1.6; white-space: pre-wrap;
      overflow-wrap: anywhere; }
.response pre { max-height: 26em; overflow-y: auto; }
.tag { font-weight: 700; }
.tag.think { color: var(--think); }
.tag.answer { color: var(--answer); }
.command { background: var(--card); border-radius: 8px; padding: 14px 16px;
           margin-bottom: 14px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; line-height: 1.5; }
th { text-align: left; font-weight: 400; color: var(--soft);
     padding: 3px 28px 3px 0; white-space: nowrap; vertical-align: top; }
td { padding: 3px 0; overflow-wrap: anywhere; font-size: 12.5px; }
.compare th, .compare td { padding: 4px 15px 4px 0; text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.compare th:first-child { text-align: left; white-space: normal; }
summary { cursor: pointer; font-size: 15px; color: var(--soft); }
details[open] summary { margin-bottom: 12px; }
@media (min-width: 561px) {
  .panel.thirds .chart text { font-size: 11.5px; }
}
@media (max-width: 560px) {
  body { font-size: 16px; }
  main { padding: 32px 18px 56px; }
  h1 { font-size: 29px; }
  .subtitle { font-size: 17px; }
  .cards, .panel, .panel.thirds { grid-template-columns: 1fr 1fr; gap: 12px; }
  .card { padding: 12px 13px 10px; }
  .figure { font-size: 22px; }
  .arrow { font-size: 16px; margin: 0 .2em; }
  .wide .chart text { font-size: 13px; }
  .panel .chart text { font-size: 16px; }
  th { padding-right: 14px; white-space: normal; }
  .compare th:first-child { min-width: 11em; }
}
@media print {
  :root { --paper: #fff; --card: #f6f6f4; }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  .response pre { max-height: none; }
  article { break-inside: avoid; }
}
"""
