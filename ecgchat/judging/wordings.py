"""How English ECG texts word each finding: regular expressions for normalised text, the more specific ones first.

Codes are SCP-ECG statements as PTB-XL uses them (Wagner et al., 2020, `scp_statements.csv`); the wordings are those of its
descriptions, of common reports and of their abbreviations. What one expression has matched, no later one sees: "incomplete
right bundle branch block" is taken before "right bundle branch block" is looked for.
"""

from __future__ import annotations

import re

RHYTHMS = frozenset(
    ("SR", "SBRAD", "STACH", "AFIB", "AFLT", "SARRH", "SVTAC", "PSVT", "PACE", "SVARR", "BIGU", "TRIGU"),
)
"""Codes of rhythms; the answer to "what is the rhythm" is one of them."""

SLOW, FAST = "bradycardia", "tachycardia"
"""Not codes: a rate said apart from the rhythm, which makes a sinus rhythm SBRAD or STACH."""

LOCATIONS = {
    "IPL": "inferoposterolateral",
    "IP": "inferoposterior",
    "IL": "inferolateral",
    "AS": "anteroseptal",
    "AL": "anterolateral",
    "A": "anterior",
    "I": "inferior",
    "L": "lateral",
    "P": "posterior",
}
"""Beginning of an infarct's code → the wall."""

Row = tuple[str, ...]
"""A code, then expressions for it, each of which begins at the beginning of a word."""

_CHANGES = r"(?:changes?|abnormalit(?:y|ies)|alterations?)"
_WAVES = r"(?: waves?)?"
_LONG = r"(?:long|prolonged|lengthened|extended)"
_PROLONGED = r"(?:(?:is |are )?(?:prolonged|lengthened|long)|prolongation|lengthening)"
_IS = r"(?: (?:is|are|was|were|appears?|looks?|seems?)(?: to be)?)?"
_ECG = r"(?:(?:12|twelve) lead )?(?:resting )?(?:ecg|tracing|recording)"
_NORMAL = r"(?:normal|unremarkable|(?:with)?in (?:the )?(?:normal limits|normal range|limits of normal))"
_ABNORMAL = r"(?:abnormalit(?:y|ies)|(?:(?:abnormal|pathologic(?:al)?|relevant|significant) )+(?:findings?|features?)|findings)"


def _nothing() -> Row:
    """Words that state nothing and deny nothing of what follows: false negations, doubts, and "otherwise normal"."""
    ecg, abnormal, normal = _ECG, _ABNORMAL, _NORMAL
    of_something = r"(?:consistent|compatible|suggest|indicat|typical|of|in keeping)"
    but_for = r",? (?:except|apart|aside|other than|with the exception|but for|besides)"
    return (
        "",
        r"not only\b",
        rf"(?:no|without)(?: significant| relevant)? changes?\b(?! {of_something})",
        r"no doubt\b",
        r"not (?:specific|diagnostic|significant)\b",
        r"can not (?:be )?(?:entirely |safely |definitely )?(?:exclud|rul)ed?(?: out)?\b",
        r"not (?:be )?(?:excluded|ruled out)\b",
        r"(?:no|without|absent|absence of)(?: \w+)?(?: \w+)? p waves?\b",
        r"\d ?: ?\d(?: av)? (?:block|conduction)",
        r"ventricular (?:fibrillation|tachycardia|flutter|escape)",
        r"wandering (?:atrial )?pacemaker",
        rf"otherwise(?: (?:an?|the|entirely|completely))? {normal}(?: {ecg})?",
        rf"{ecg}{_IS} otherwise {normal}",
        rf"otherwise (?:no|without)(?: \w+)? {abnormal}",
        rf"(?:no|without)(?: any)? (?:other|further|additional|more)(?: \w+)? {abnormal}",
        rf"{normal} {ecg}{but_for}",
        r"(?:near|nearly|almost|borderline) normal",
        rf"no(?: \w+)? {abnormal}{but_for}",
    )


def _rhythms() -> tuple[Row, ...]:
    """Rhythms; a slow or fast sinus rhythm is one of its own."""
    tachycardia = r"tachy(?:cardia|arrhythmia)s?"
    origin = r"(?: \(?unknown origin, sv or ventricular\)?)?"
    return (
        ("PACE", r"(?:normal(?:ly)? )?(?:functioning )?(?:artificial )?(?:pacemaker|pacing|paced)(?: rhythm)?\b"),
        ("PSVT", rf"paroxysmal (?:supraventricular {tachycardia}|svt)\b", r"psvt\b"),
        ("SVTAC", rf"(?:supraventricular|atrial) {tachycardia}\b", r"svt(?:ac)?\b"),
        ("SVARR", r"supraventricular arrhythmias?\b"),
        ("AFIB", r"(?:absolute arrhythmia (?:in|with|due to|from) )?(?:atrial|auricular) fibrillation\b"),
        ("AFIB", r"absolute arrhythmia\b", r"a ?fib\b", r"af\b"),
        ("AFLT", r"(?:atrial|auricular|a) ?flutter\b", r"aflt?\b", r"flutter waves\b"),
        ("SARRH", r"sinus arr?h?ythmias?\b", r"sarrh\b"),
        ("SBRAD", r"sinus brady(?:cardia)?\b", r"slow sinus (?:rhythm|rate)(?:,? (?:with )?bradycardia)?", r"sbrad\b"),
        ("SBRAD", r"bradycardic sinus rhythm", r"sinus rhythm,?(?: (?:with|and|in))? bradycardi[ac]"),
        (
            "STACH",
            r"sinus tachy(?:cardia)?\b",
            r"(?:fast|rapid) sinus (?:rhythm|rate)(?:,? (?:with )?tachycardia)?",
            r"stach\b",
        ),
        ("STACH", r"tachycardic sinus rhythm", r"sinus rhythm,?(?: (?:with|and|in))? tachycardi[ac]"),
        ("SR", r"(?:normal |regular )*sinus rhythm\b", r"nsr\b"),
        ("SR", r"rhythm(?: is|:|,)?(?: an?)?(?: normal| regular)? sinus\b(?! (?:brady|tachy|arr))"),
        ("BIGU", rf"(?:(?:supra)?ventricular )?bigemin(?:y|us|al|i)\b(?: (?:pattern|rhythm))?{origin}"),
        ("TRIGU", rf"(?:(?:supra)?ventricular )?trigemin(?:y|us|al|i)\b(?: (?:pattern|rhythm))?{origin}"),
    )


def _premature_beats() -> tuple[Row, ...]:
    """Extrasystoles, by chamber and without."""
    systoles = r"(?:extra ?)?systoles?|ectop(?:y|ics?|ic beats?)"
    beats = rf"(?:complex(?:es)?|contractions?|beats?|depolari[sz]ations?|{systoles})(?: beats?)?"
    chambers = {
        "PAC": (r"(?:supraventricular|atrial|junctional)", r"(?:pacs?|apcs?|apbs?|svpbs?|svpcs?|sves)\b"),
        "PVC": (r"ventricular", r"(?:pvcs?|vpcs?|vpbs?|pvbs?|ves|vebs?)\b"),
    }
    return (
        *(
            (
                code,
                rf"premature {chamber} {beats}",
                rf"{chamber} premature {beats}",
                rf"{chamber} (?:extra ?systoles?|ectop\w+)",
                short,
            )
            for code, (chamber, short) in chambers.items()
        ),
        ("PRC(S)", rf"premature {beats}", r"extra ?systoles?", r"ectopic beats?"),
    )


def _av_block() -> tuple[Row, ...]:
    """AV block by degree; a long PR interval that explains itself by a first-degree block is no second finding."""
    first, second, third = (_degree(*names) for names in _DEGREES)
    long_pr = rf"{_LONG} pr(?: interval)?"
    return (
        ("1AVB", *(rf"{long_pr},?(?: (?:with|in|due to|consistent with|and))? {wording}" for wording in first)),
        ("3AVB", *third, r"(?:complete|total) (?:heart|av|atrioventricular) block"),
        ("2AVB", *second, r"wenckebach\w*", r"mobitz\b(?: type)?(?: [12i]+)?"),
        ("1AVB", *first),
        ("LPR", rf"{long_pr}\b", rf"pr(?: interval)? {_PROLONGED}", r"prolongation of (?:the )?pr"),
    )


_DEGREES = (("1", "i", "first", "1st"), ("2", "ii", "second", "2nd"), ("3", "iii", "third", "3rd"))


def _degree(number: str, roman: str, word: str, ordinal: str) -> Row:
    """AV block of a degree: "first degree AV block", "AV block i°", "1° AVB"."""
    block = r"(?:(?:av|a v|atrioventricular|heart) ?(?:conduction )?blocks?|avb)"
    degree = rf"(?:{word}|{ordinal}|{number}|{roman})\b"
    of = r",?(?: of)?(?: the)?(?: (?:grade|degree|type))?"
    return (
        rf"{degree} (?:degree (?:mobitz )?block|(?:degree )?(?:mobitz )?{block})\b(?: {roman} degree)?",
        rf"{block}{of} {degree}(?! (?:degree )?(?:av|a v|atrioventricular|heart)\b)(?: degree)?",
        rf"{number}avb\b",
    )


def _branch_blocks() -> tuple[Row, ...]:
    """Blocks of the bundle branches and fascicles; changes of ST and T that a block explains are no second finding."""
    rows: list[Row] = []
    for side, letter in (("left", "l"), ("right", "r")):
        block = rf"(?:{side} bundle(?: branch)?(?: conduction)? blocks?|{letter}bbb)"
        other_incomplete = rf"{block} incomplete(?! (?:left|right|[lr]bbb))"
        rows += [
            (f"I{letter.upper()}BBB", rf"(?:incomplete|partial) {block}", other_incomplete, rf"i{letter}bbb\b"),
            (f"I{letter.upper()}BBB", rf"{side} (?:incomplete|partial) bundle branch block"),
        ]
    for side, letter in (("left", "l"), ("right", "r")):
        block = rf"(?:{side} bundle(?: branch)?(?: conduction)? blocks?|{letter}bbb)"
        explained = rf"(?: with (?:secondary )?(?:st t|st|t){_WAVES} {_CHANGES})?"
        rows.append((f"C{letter.upper()}BBB", rf"(?:complete )?{block}{explained}", rf"c{letter}bbb\b"))
    fascicle = r"(?:fascicular (?:conduction )?(?:block|delay)|hemi ?block)"
    return (
        *rows,
        ("LAFB", rf"(?:left )?anterior {fascicle}", r"lafb\b", r"lahb\b"),
        ("LPFB", rf"(?:left )?posterior {fascicle}", r"lpfb\b", r"lphb\b"),
        ("IVCD", rf"intra ?ventricular (?:conduction )?(?:disturbances?|delays?|defects?|blocks?|{_CHANGES})", r"ivcd\b"),
        ("WPW", r"wolff? parkinson white(?: (?:syndrome|pattern))?", r"wpw\b", r"preexcitation", r"delta waves?"),
    )


def _infarcts() -> tuple[Row, ...]:
    """Infarcts by wall. AMI is no abbreviation here: it also means an acute infarct anywhere."""
    age = r"acute|subacute|chronic|old|recent|prior|previous|possible|probable|transmural"
    wave = r"(?:non )?(?:st(?: segment)? elevation|q wave)"
    infarct = rf"(?:(?:{age}|{wave}) )*(?:(?:myocardial|cardiac) )?(?:infarct(?:ion)?s?|n?stemi|mi)\b"
    where = r"infarct(?:ion)?s? (?:of|in|at|involving|affecting) (?:the )?"
    return (
        *((f"{wall}MI", rf"{place}(?: wall)? {infarct}", rf"{where}{place}\b") for wall, place in LOCATIONS.items()),
        *((f"{wall}MI", rf"{wall.lower()}mi\b") for wall in LOCATIONS if wall != "A"),
        ("ANEUR", r"(?:st t changes compatible with )?(?:left |right )?(?:ventricular )?aneurysms?\b"),
    )


def _ischemia() -> tuple[Row, ...]:
    """Subendocardial injury and ischemia, by wall and without."""
    injured = {"INJAS": "AS", "INJAL": "AL", "INJIN": "I", "INJLA": "L", "INJIL": "IL"}
    ischemic = {"ISCAL": "AL", "ISCIN": "I", "ISCIL": "IL", "ISCAS": "AS", "ISCLA": "L", "ISCAN": "A"}
    injury = r"subendocardial injury"
    somewhere = rf"ischemi[ac](?: st t)?(?: {_CHANGES})? (?:in|of) (?:the )?"
    return (
        *(
            (code, rf"{injury} in (?:the )?{LOCATIONS[wall]}\b", rf"{LOCATIONS[wall]} {injury}")
            for code, wall in injured.items()
        ),
        *(
            (code, rf"{somewhere}{LOCATIONS[wall]}\b", rf"{LOCATIONS[wall]}(?: wall)? (?:myocardial )?ischemi[ac]")
            for code, wall in ischemic.items()
        ),
        ("ISC_", rf"(?:nonspecific )?ischemi[ac](?: st t| st| t)?{_WAVES}(?: {_CHANGES})?"),
    )


def _chambers() -> tuple[Row, ...]:
    """Hypertrophy and enlargement; strain and high voltage that a hypertrophy explains are no second finding.

    PTB-XL describes VCLVH as "voltage criteria (QRS) for left ventricular hypertrophy"; without "(QRS)" reports use the words
    for LVH itself.
    """
    kind = r"(?:overload|enlargement|abnormality|dilat(?:at)?ion|hypertrophy)"
    enlarged = rf"(?:{kind}(?: (?:overload|enlargement|hypertrophy))?|enlarged)"
    repolarisation = rf"(?:st t|st|t|repolari[sz]ation){_WAVES} {_CHANGES}"
    strain = rf"(?: with (?:secondary )?(?:strain(?: pattern)?|{repolarisation}|high(?: qrs)? voltages?))?"
    left = r"(?:left (?:ventric(?:ular|le) )?hypertrophy|lvh|hypertrophy of the left ventricle)\b"
    return (
        (
            "VCLVH",
            r"voltage criteria qrs for (?:left ventricular hypertrophy|lvh)\b",
            rf"{left} by (?:qrs )?voltage(?: criteria)?",
            r"vclvh\b",
        ),
        ("LVH", rf"(?:voltage criteria for )?{left}{strain}"),
        ("RVH", r"right (?:ventric(?:ular|le) )?hypertrophy", r"rvh\b", r"hypertrophy of the right ventricle"),
        ("SEHYP", r"septal hypertrophy", r"hypertrophy of the septum", r"sehyp\b"),
        ("LAO/LAE", rf"left atrial {enlarged}", r"left atrium(?: is)? enlarged", r"la[eo]\b", r"p (?:mitrale|sinistro\w+)"),
        ("RAO/RAE", rf"right atrial {enlarged}", r"right atrium(?: is)? enlarged", r"ra[eo]\b", r"p (?:pulmonale|dextro\w+)"),
    )


def _intervals_and_qrs() -> tuple[Row, ...]:
    """Drug effects, QT, Q waves and voltages."""
    electrolytes = rf"electrolyt(?:e|ic) (?:disturbances?|imbalance|effects?|{_CHANGES}|or drug)"
    planes = r"(?: in the frontal and horizontal leads)?"
    return (
        ("DIG", r"digitalis\b(?: effects?)?", r"digoxin effects?"),
        ("EL", rf"{electrolytes}(?: or drug)?(?: effects?)?"),
        ("LNGQT", rf"{_LONG} qtc?(?: (?:interval|syndrome))?\b", rf"qtc?(?: interval)? {_PROLONGED}", r"lngqt\b"),
        ("LNGQT", r"prolongation of (?:the )?qt"),
        ("QWAVE", r"(?:pathologic(?:al)? |abnormal |significant )?q waves?\b(?: present)?"),
        ("LVOLT", rf"(?:peripheral )?low (?:peripheral )?(?:qrs )?(?:voltages?|amplitude qrs){planes}", r"lvolt\b"),
        ("LVOLT", r"qrs (?:voltages? (?:is|are) low|low voltages?)"),
        ("HVOLT", r"high (?:qrs )?voltages?", r"qrs voltages? (?:is|are) high", r"hvolt\b"),
    )


def _repolarisation() -> tuple[Row, ...]:
    """ST segment, T wave, and the general words for QRS."""
    rows: list[Row] = []
    for code, moved, displaced in (("STE_", r"elevat\w+|raised", "elevation"), ("STD_", r"depress\w+|lowered", "depression")):
        rows += [
            (code, rf"st(?: segments?)? (?:is |are )?(?:{moved})", rf"st segments?[^,:]{{0,30}}? (?:is|are) (?:{moved})"),
            (code, rf"(?:{moved}) st\b(?: segments?)?", rf"{displaced}s? of (?:the )?st\b"),
        ]
    flat = r"(?:low(?: amplitude| voltage)?|flat(?:tened)?)"
    return (
        *rows,
        ("", rf"secondary (?:st t|st|t)(?: segment| wave)?s? {_CHANGES}"),
        ("NST_", rf"(?:nonspecific )?(?:st t|st)(?: segment| wave)?s? {_CHANGES}"),
        ("NST_", r"(?:abnormal|nonspecific) st(?: t)?\b(?: segments?)?"),
        ("NDT", rf"nondiagnostic t\b{_WAVES}(?: {_CHANGES})?", rf"t{_WAVES} changes that are not diagnostic"),
        ("NDT", rf"nonspecific abnormal t\b{_WAVES}"),
        ("NT_", rf"nonspecific t{_WAVES} {_CHANGES}", rf"t{_WAVES} changes that are not specific"),
        ("INVT", rf"(?:inverted|negative) t\b{_WAVES}", rf"t{_WAVES} (?:(?:is|are) )?(?:inver(?:ted|sions?)|negative)"),
        ("INVT", rf"inversions? of (?:the )?t\b{_WAVES}"),
        ("LOWT", rf"{flat} t\b{_WAVES}", rf"t{_WAVES} (?:(?:is|are) )?(?:flat(?:tened|tening)?|low)\b"),
        ("TAB_", rf"t{_WAVES} {_CHANGES}", rf"abnormal t\b{_WAVES}", r"t waves? (?:is|are) abnormal"),
        ("ABQRS", r"abnormal qrs\b(?: t\b)?(?: complex(?:es)?)?"),
        ("ABQRS", rf"qrs(?: t)?(?: complex(?:es)?)?(?: is| are)? (?:abnormal|{_CHANGES})"),
    )


def _normal() -> tuple[Row, ...]:
    """A normal ECG, in positive words or as the absence of anything abnormal."""
    of_something = r"(?! (?:such|like|including|of|in (?!this|the (?:ecg|tracing))))"
    return (
        ("NORM", rf"normal {_ECG}", rf"{_ECG}s?{_IS}(?: \w+ly)? {_NORMAL}", rf"(?<![\w ]){_NORMAL}$"),
        ("NORM", rf"findings{_IS} normal", r"(?:only )?normal findings"),
        ("NORM", rf"(?:no|without)(?: any)? {_ABNORMAL}(?: at all)?\b{of_something}"),
    )


_TABLE: tuple[Row, ...] = (
    _nothing(),
    *_rhythms(),
    *_premature_beats(),
    *_av_block(),
    *_branch_blocks(),
    *_infarcts(),
    *_ischemia(),
    *_chambers(),
    *_intervals_and_qrs(),
    *_repolarisation(),
    *_normal(),
    (SLOW, r"bradycardi[ac]\b"),
    (FAST, r"tachycardi[ac]\b"),
)

WORDINGS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (code, re.compile(rf"\b(?:{'|'.join(expressions)})")) for code, *expressions in _TABLE
)
"""(code, expression) in the order in which they are to be tried; the code is empty for words that state nothing."""

VOCABULARY = frozenset(code for code, _ in WORDINGS if code) - {SLOW, FAST}
"""Every code that can be read: all 71 of PTB-XL."""
