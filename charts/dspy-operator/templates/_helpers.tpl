{{- define "dspy-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- /* The release's name, unless it says nothing about what it is. */ -}}
{{- define "dspy-operator.fullname" -}}
{{- $name := include "dspy-operator.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dspy-operator.serviceAccount" -}}
{{- default (include "dspy-operator.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "dspy-operator.selector" -}}
app.kubernetes.io/name: {{ include "dspy-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dspy-operator.labels" -}}
{{ include "dspy-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* (dict "image" .Values.image "default" .Chart.AppVersion) -> repository:tag or repository@digest */ -}}
{{- define "dspy-operator.image" -}}
{{- $tag := default .default .image.tag -}}
{{- printf "%s%s%s" .image.repository (ternary "@" ":" (hasPrefix "sha256:" $tag)) $tag -}}
{{- end -}}

{{- /* A policy's variables: all profiles (list -> its entries, one a line), and the name of the one that the namespace has. */ -}}
{{- define "dspy-operator.policyProfile" -}}
- name: profiles
  expression: >-
    {{ toJson . }}
- name: label
  expression: >-
    namespaceObject.metadata.?labels[?'dspy-operator.io/policy'].orValue('default')
- name: profile
  expression: >-
    variables.label in variables.profiles ? variables.label : 'default'
{{- end -}}

{{- /* CEL: a list of the namespace's profile. */ -}}
{{- define "dspy-operator.policyList" -}}
variables.profiles[variables.profile]['{{ . }}'].split('\n').filter(entry, entry != '')
{{- end -}}

{{- /* CEL: the end of every refusal, (dict "list" a variable "contact" who gives more): what is allowed and where. */ -}}
{{- define "dspy-operator.policyAllowed" -}}
' is not allowed; namespace "' + request.namespace + '" (policy "' + variables.profile + '") allows ' + (variables.{{ .list }}.size() == 0 ? 'none' : variables.{{ .list }}.join(', ')) + {{ printf ". Ask %s" .contact | toJson }}
{{- end -}}
