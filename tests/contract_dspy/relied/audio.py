from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy._vendor.lm15.transports.StdlibTransport",
        "source a47d78020cf1221c",
        "the client's own transport, behind one that gives audio its place in the body; the body's length is counted after that",
    ),
    Relied(
        "dspy._vendor.lm15.types.AudioPart",
        "source 4360dced89cab851",
        "what DSPy makes of dspy.Audio: base64 data, audio/wav or audio/mpeg",
    ),
    Relied(
        "dspy._vendor.lm15.types.ImagePart",
        "source f349579b93a2c855",
        "what the client lets through, with data of any media type: a data URI on the wire",
    ),
)
