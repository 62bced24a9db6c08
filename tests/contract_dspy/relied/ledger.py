from tests.contract_dspy.relied import Relied

RELIED = (
    Relied(
        "dspy.LM.__call__",
        "source 2decac4b727d4b87",
        "LedgerLM's opens the scope of a rollout around it, once for each call, also of n > 1",
    ),
    Relied(
        "dspy.LM.__init__",
        "(self, model, model_type='chat', temperature=None, max_tokens=None, cache=True, callbacks=None, num_retries=3, provider=None, finetuning_model=None, launch_kwargs=None, train_kwargs=None, use_developer_role=False, engine='auto', async_engine=None, prompt_cache=None, **kwargs)",
        "a custom engine; cache=False, num_retries=0: the Ledger alone remembers and retries",
    ),
    Relied(
        "dspy.BaseLM.copy",
        "source d8ee859f3dc82f6e",
        "COPRO's copy keeps the engine and takes the sieve as an attribute",
        "ledger.py::LedgerLM",
    ),
    Relied(
        "dspy.clients.lm._check_engines",
        "source 624d2a55180c6c2c",
        "what DSPy asks of an engine object",
        "ledger.py::RoleEngine",
    ),
    Relied(
        "dspy._vendor.lm15.serde.request_to_dict",
        "source de2956f7aa4d41c7",
        "a request's key is a hash of it: another form replays nothing",
    ),
    Relied("dspy._vendor.lm15.serde.response_to_dict", "source 4d4996a7a038cdea", "the form of answers in journals"),
    Relied(
        "dspy._vendor.lm15.serde.response_from_dict",
        "source a23795dc2f0b889c",
        "journals of earlier versions are read with it",
    ),
    Relied(
        "dspy.clients.engines.lm15_engine.LM15Engine",
        "(config=None, *, model_type='chat')",
        "the wire: one attempt, canonical errors, no retries",
    ),
    Relied(
        "dspy.clients.engines.lm15_engine.LM15Engine.complete",
        "source 0605c3950db2e0a5",
        "raises LM15Error alone, answers with one Response",
        "ledger.py::RoleEngine.attempt",
    ),
    Relied(
        "dspy._vendor.lm15.router.LITELLM_PROVIDER_PREFIXES",
        "= mappingproxy({'openai': 'openai-chat', 'anthropic': 'anthropic', 'gemini': 'gemini', 'groq': 'groq', 'openrouter': 'openrouter', 'deepseek': 'deepseek', 'xai': 'xai', 'ollama': 'ollama', 'ollama_chat': 'ollama', 'hosted_vllm': 'vllm', 'moonshot': 'moonshotai', 'azure': 'azure-chat'})",
        "openai/ and ollama_chat/ lead to the two Chat Completions providers whose URL we set",
        "ledger.py::_wire",
    ),
    Relied(
        "dspy.lm15.RouterConfig",
        "(registry=None, rules=(RouteRule(prefix='claude-', provider='anthropic', note='Anthropic Claude family'), RouteRule(prefix='gpt-', provider='openai', note='OpenAI GPT family (Responses API; use openai-chat: for Chat Completions)'), RouteRule(prefix='o1', provider='openai', note='OpenAI o1 reasoning family'), RouteRule(prefix='o3', provider='openai', note='OpenAI o3 reasoning family'), RouteRule(prefix='o4', provider='openai', note='OpenAI o4 reasoning family'), RouteRule(prefix='gemini-', provider='gemini', note='Google Gemini family'), RouteRule(prefix='gemma-', provider='gemini', note='Google Gemma open models, served by the Gemini API (live /models listing 2026-09-01)'), RouteRule(prefix='nano-banana', provider='gemini', note='Google image models on the Gemini API (live /models listing 2026-09-01)'), RouteRule(prefix='grok-', provider='xai', note='xAI Grok family (XAI_API_KEY or subscription OAuth)'), RouteRule(prefix='sora-', provider='openai', note='OpenAI Sora video generation'), RouteRule(prefix='veo-', provider='gemini', note='Google Veo video generation'), RouteRule(prefix='chat-latest', provider='openai', note='OpenAI rolling chat alias (live /models listing 2026-09-01)'), RouteRule(prefix='jev-', provider='typesafe', note='TypeSafe Jev (live /v1/models listing 2026-09-17: jev-latest, jev-preview; versioned ids jev-1.13.0 accepted)')), env=None, api_keys=None, transport=None, *, base_urls=None, settings=None, credentials=None, timeouts=None, max_connections=None, adaptations='note', providers=())",
        "keys, URLs and time-outs by provider; env={} reads nothing of the machine's",
        "ledger.py::_wire",
    ),
    Relied(
        "dspy.lm15.Timeouts",
        "(connect=10.0, read=600.0, write=600.0, pool=600.0)",
        "pool=None waits for a connection as long as it takes",
        "ledger.py::_wire",
    ),
    Relied("dspy.lm15.ProviderError.default_code", "= 'provider'", "RequestFailed has its own"),
    Relied(
        "dspy.lm15.ContextLengthError",
        "is ContextLengthError < InvalidRequestError < ProviderError < LM15Error < Exception < BaseException",
        "RequestTooLong is one, DSPy's ContextWindowExceededError comes of it",
        "ledger.py::RequestTooLong",
    ),
    Relied(
        "dspy.lm15.RateLimitError",
        "is RateLimitError < ProviderError < LM15Error < Exception < BaseException",
        "a trouble by its class: LIMITED",
        "ledger.py::_trouble",
    ),
    Relied(
        "dspy.lm15.TimeoutError",
        "is TimeoutError < ProviderError < LM15Error < TimeoutError < OSError < Exception < BaseException",
        "a trouble by its class: TIMEOUT",
        "ledger.py::_trouble",
    ),
    Relied(
        "dspy.lm15.TransportError",
        "is TransportError < LM15Error < Exception < BaseException",
        "a trouble by its class: CONNECTION, or TIMEOUT by its words",
        "ledger.py::_trouble",
    ),
    Relied(
        "dspy.lm15.ServerError",
        "is ServerError < ProviderError < LM15Error < Exception < BaseException",
        "a trouble by its class: SERVER",
        "ledger.py::_trouble",
    ),
    Relied(
        "dspy.lm15.AuthError",
        "is AuthError < ProviderError < LM15Error < Exception < BaseException",
        "ends a run: AuthenticationFailed",
        "ledger.py::Ledger._fail",
    ),
    Relied(
        "dspy.lm15.BillingError",
        "is BillingError < ProviderError < LM15Error < Exception < BaseException",
        "ends a run, though a vendor sends it as a 429",
        "ledger.py::Ledger._fail",
    ),
    Relied(
        "dspy.lm15.NotConfiguredError",
        "is NotConfiguredError < ConfigurationError < LM15Error < Exception < BaseException",
        "ends a run: AuthenticationFailed",
        "ledger.py::Ledger._fail",
    ),
    Relied(
        "dspy.lm15.UnsupportedModelError",
        "is UnsupportedModelError < InvalidRequestError < ProviderError < LM15Error < Exception < BaseException",
        "ends a run: the endpoint does not know the model",
        "ledger.py::Ledger._fail",
    ),
    Relied(
        "dspy.lm15.InvalidRequestError",
        "is InvalidRequestError < ProviderError < LM15Error < Exception < BaseException",
        "a request that fails for ever",
        "ledger.py::Ledger._fail",
    ),
    Relied(
        "dspy.lm15.CapabilityError",
        "is CapabilityError < LM15Error < Exception < BaseException",
        "a request that fails for ever",
        "ledger.py::Ledger._fail",
    ),
)
