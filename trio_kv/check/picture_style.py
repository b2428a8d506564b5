"""How a picture looks, in light and in dark. Colours are named by what they stand for."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbfc; --card: #fff; --ink: #1d2330; --soft: #5d687a; --line: #e1e4ea; --lane: #f4f5f8;
  --get: #3b7ddd; --set: #2e9e6b; --cas: #8a5cd6; --delete: #c77d1a;
  --incr: #2899a8; --scan: #6b7688; --txn: #c2478f;
  --bad: #d6293e; --fault: #dca53a; --band: #f2c94c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12151c; --card: #1a1e27; --ink: #e6e9f0; --soft: #98a2b3; --line: #323947; --lane: #20252f;
    --get: #6aa5f5; --set: #52c490; --cas: #b394f0; --delete: #e3a34d;
    --incr: #5cc4d1; --scan: #a3adbd; --txn: #ec86c0;
    --bad: #ff6b7d; --fault: #c79a3a; --band: #d8a62a;
  }
}
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 22px; margin: 0 0 6px; }
h2 { font-size: 16px; margin: 0 0 10px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px 20px;
  margin-top: 20px; }
section.broken { border-left: 5px solid var(--bad); }
p { margin: 6px 0; }
.soft { color: var(--soft); }
.words { font-size: 17px; line-height: 1.45; max-width: 78ch; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 1px 10px; border-radius: 99px; font-weight: 600; color: #fff;
  margin-right: 8px; }
.badge.valid { background: #217a52; }
.badge.violation { background: #c42237; }
.badge.unknown { background: #8a6416; }
.scroll { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 860px; height: auto; font: 11px ui-monospace, Menlo, Consolas,
  monospace; }
svg text { fill: var(--ink); white-space: pre; }
svg .soft { fill: var(--soft); }
.lane { fill: var(--lane); }
.grid { stroke: var(--line); stroke-width: 1; }
.get { fill: var(--get); stroke: var(--get); }
.set { fill: var(--set); stroke: var(--set); }
.cas { fill: var(--cas); stroke: var(--cas); }
.delete { fill: var(--delete); stroke: var(--delete); }
.incr { fill: var(--incr); stroke: var(--incr); }
.scan { fill: var(--scan); stroke: var(--scan); }
.txn { fill: var(--txn); stroke: var(--txn); }
.bar { stroke-width: 1; }
.aside rect, .aside path { opacity: .38; }
svg .aside text { fill: var(--soft); }
.failed { fill-opacity: .12; stroke-dasharray: 3 2; }
.unknown { fill-opacity: .3; stroke-dasharray: 4 3; }
.open { fill: none; stroke-width: 1.6; }
.illegal { fill: none; stroke: var(--bad); stroke-width: 2.5; }
svg text.bad { fill: var(--bad); font-weight: 700; }
.moment { stroke: var(--bad); stroke-width: 1.2; stroke-dasharray: 2 3; }
.band { fill: var(--band); opacity: .13; }
.fault { fill: var(--fault); opacity: .85; }
svg text.onfault { fill: #1d1500; }
.cell { fill: var(--get); }
.mark { fill: var(--bad); }
.area { fill: var(--get); opacity: .75; }
.worse { fill: var(--bad); }
table { border-collapse: collapse; font-size: 13px; margin-top: 12px; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
tr.worst td { color: var(--bad); font-weight: 600; }
.legend span { margin-right: 16px; display: inline-block; }
.legend i { display: inline-block; width: 12px; height: 10px; border-radius: 2px; margin-right: 5px; }
.legend i.get { background: var(--get); }
.legend i.set { background: var(--set); }
.legend i.cas { background: var(--cas); }
.legend i.delete { background: var(--delete); }
.legend i.incr { background: var(--incr); }
.legend i.scan { background: var(--scan); }
.legend i.txn { background: var(--txn); }
.legend i.worse { background: var(--bad); }
.legend i.fault { background: var(--fault); }
"""
